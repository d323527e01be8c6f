"""Some members of an object, each byte for byte as it came."""

from skygw.protocol.json_text import compact, read_object


def only_fields(data: str, fields: tuple[str, ...]) -> str:
    """`data` with the named top-level members alone, in their own order; `uid` stays, or nobody would know of what."""
    wanted = {*fields, "uid"}
    kept = [
        f"{compact.encode(name)}:{data[member.start : member.end]}"
        for name, member in read_object(data).members.items()
        if name in wanted
    ]
    return "{" + ",".join(kept) + "}"
