"""Says which database is meant, without its password."""

from urllib.parse import parse_qs, urlsplit

from skygw.errors import StartupError


def name_database(url: str) -> str:
    """`user@host/database` out of a connection URL, for sentences to people; never a password or an option.

    Raises `StartupError` for a URL of another kind and for one whose password holds an unescaped `@`, `/` or
    `:`: drivers cut such a URL in the wrong place and would print the rest of the password as a host.
    """
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme not in ("postgresql", "postgres"):
        raise StartupError("a database URL begins with postgresql://")
    port = host.rpartition("]")[2].partition(":")[2]
    if "@" in user + parts.path or user.count(":") > 1 or not (port == "" or port.isdecimal()):
        raise StartupError("the database URL is not understood: write @, / and : in a password as %40, %2F, %3A")
    host = host or next(iter(parse_qs(parts.query).get("host", [])), "localhost")
    return f"{parts.username}@{host}{parts.path}" if parts.username else f"{host}{parts.path}"
