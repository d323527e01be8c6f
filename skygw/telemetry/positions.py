"""Places in a stream as subscribers carry them: opaque text, `s…` of a retained stream, `l…` of a logged one."""

import re

from skygw.errors import Invalid
from skygw.protocol.streams import EARLIEST, RETAINED_STREAMS, StreamName

ERA_SHIFT = 40
"""A version is the era above and a counter below: 2^40 changes are 30 years of a thousand a second."""

_RETAINED = re.compile(r"s([0-9a-f]{1,24})", re.ASCII)
_LOGGED = re.compile(r"l([0-9]{1,18})", re.ASCII)


class Versions:
    """Counts the changes of retained values. An era is one run of a gateway; later ones have larger numbers."""

    def __init__(self, era: int) -> None:
        self.era = era
        self.last = era << ERA_SHIFT

    def next(self) -> int:
        self.last += 1
        return self.last


def era_of(version: int) -> int:
    return version >> ERA_SHIFT


def retained_position(version: int) -> str:
    return f"s{version:x}"


def logged_position(position: int) -> str:
    return f"l{position}"


def read_position(stream: StreamName, text: str) -> int:
    """The number in a position of this stream. Raises `Invalid` for one of another kind of stream, or none at all."""
    if stream in RETAINED_STREAMS:
        found = _RETAINED.fullmatch(text)
        if found:
            return int(found[1], 16)
    else:
        if text == EARLIEST:
            return 0
        found = _LOGGED.fullmatch(text)
        if found:
            return int(found[1])
    raise Invalid(f"options.after: {text[:64]!r} is no position of the stream {stream.value}.")
