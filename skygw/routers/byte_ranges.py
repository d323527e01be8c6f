"""Which bytes a request asks for (RFC 9110 §14), and whether it wants them at all (§13)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?P<first>[0-9]{0,30})-(?P<last>[0-9]{0,30})[ \t]*", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class NotSatisfiable(Exception):
    """None of the bytes asked for exist."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `offset`; both are within the whole."""

    offset: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"


def asked_range(field: str | None, *, if_range: str | None, etag: str, size: int) -> ByteRange | None:
    """The one range that is asked for; None for the whole, which is also the answer to what is no byte range, to
    several of them, and where `If-Range` names something else. Raises `NotSatisfiable`.
    """
    if field is None or (if_range is not None and if_range.strip() != etag):
        return None
    match = _RANGE.fullmatch(field.strip())
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        wanted = min(int(match["last"]), size)
        if wanted == 0:
            raise NotSatisfiable
        return ByteRange(size - wanted, wanted)
    first, last = int(match["first"]), int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None
    if first >= size:
        raise NotSatisfiable
    return ByteRange(first, min(last, size - 1) - first + 1)


def names(field: str, etag: str) -> bool:
    """Whether a list of entity tags, or `*`, has this one. For `If-None-Match`, whose comparison is weak."""
    return field.strip() == "*" or etag in _ETAG.findall(field)


def names_strongly(field: str, etag: str) -> bool:
    """The same for `If-Match`: a weak tag names nothing."""
    return field.strip() == "*" or etag in (each.strip() for each in field.split(","))
