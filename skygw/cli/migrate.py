"""`skygw migrate`: runs the numbered SQL migrations as the owner of the tables, or says which are waiting."""

from pathlib import Path

import trio

from skygw.cli.configuration import load_settings
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError


def migrate(*, check: bool = False, config: Path | None = None, as_json: AsJson = False) -> int:
    """Bring the database up to date. Doing it again changes nothing; a second run waits for the first.

    Parameters
    ----------
    check
        Change nothing; list the migrations that are waiting and exit with 1 if there are any.
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    from skygw.database import migrate as migrations

    settings = load_settings(config=config)
    url = settings.database_owner_url or (settings.database_url if check else None)
    if url is None:
        raise StartupError(
            "SKYGW_DATABASE_OWNER_URL is not set, and migrations change tables: set it to the URL of the tables' owner "
            "(the embedded database needs no migrating, “skygw serve” does it)"
        )
    terminal = Terminal(as_json=as_json)
    work = migrations.pending if check else migrations.migrate
    with terminal.progress("asking the database…" if check else "migrating the database…"):
        names = trio.run(work, url.get_secret_value())
    if as_json:
        terminal.json({"waiting" if check else "applied": names})
    else:
        for name in names:
            terminal.line(name)
        if not names:
            terminal.note("the database is up to date")
    return ExitCode.FAILED if check and names else ExitCode.OK
