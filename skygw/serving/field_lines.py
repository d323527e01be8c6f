"""What a line of a request head or of a trailer must look like, wherever it stands (RFC 9112 §2.2, §5; RFC 9110 §5.5).

The parser behind is lenient where attackers live: it takes a bare LF for the end of a line, unfolds lines, and lets
control characters through. Two programs that cut the same bytes differently is what request smuggling is made of.
"""

import re
from collections.abc import Sequence

MAX_LINES = 128
"""Of one head or trailer section: each costs the parser far more than the peer."""

TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_FIELD_NAME = re.compile(TOKEN + b":")
_PROPER_LINES = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]*\r\n(?![\t ]))*[\t\x20-\x7e\x80-\xff]*")
_WELL_FORMED_LINES = re.compile(rb"(?:" + TOKEN + rb": [\t\x20-\x7e\x80-\xff]*\r\n)*+")
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))


class MalformedError(Exception):
    """This is no request that is taken here; status, sentence and further headers are its answer."""

    def __init__(self, status: int, sentence: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


def check_lines(text: bytes | bytearray) -> None:
    """Raise `MalformedError` unless each line ends in CRLF and none is folded or holds control characters.

    `text` begins at the start of a line or in its middle, and does not end between a CR and its LF.
    """
    if text.count(b"\n") > MAX_LINES:  # first, since the pattern takes memory for each line
        raise MalformedError(431, f"More than {MAX_LINES} header fields were sent.")
    if _PROPER_LINES.fullmatch(text) is None:
        raise MalformedError(400, _what_is_wrong_with(text))


def _what_is_wrong_with(text: bytes | bytearray) -> str:
    ends = text.count(b"\r\n")
    if text.count(b"\n") != ends:
        return "A line ends in a bare LF."
    if text.count(b"\r") != ends:
        return "A bare CR is in the request."
    if len(text.translate(None, _CONTROLS)) != len(text):
        return "A control character is in the request."
    return "A header field is folded over more than one line."


def check_fields(section: bytes | bytearray) -> None:
    """Raise `MalformedError` unless `section`, whose lines were checked, is field lines and an empty line."""
    for line in section[:-4].split(b"\r\n"):
        if _FIELD_NAME.match(line) is None:
            raise MalformedError(400, "A field has no proper name.")


def lines_of(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The lines of an answer's fields. Raises `ValueError` unless each is one line of its own."""
    text = b"".join([b"%b: %b\r\n" % field for field in fields])
    if text.count(b"\n") != len(fields) or _WELL_FORMED_LINES.fullmatch(text) is None:
        raise ValueError("a header field of the answer is malformed")
    return text
