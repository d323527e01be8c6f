"""The chunked transfer coding to the letter, and its payload joined (RFC 9112 §7.1).

Chunk framing is where front and back ends are played off against each other, and a body in chunks of one byte costs a
parser a hundred times what it costs the peer. So the framing ends here: what goes on is one run of payload per read.
"""

import re

from skygw.serving.field_lines import TOKEN, MalformedError, check_fields, check_lines

MAX_SIZE_LINE = 256
MAX_EXTENSION_BYTES = 16 * 1024
"""Of one body. Extensions mean nothing here and are read past (RFC 9112 §7.1.1)."""

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + b"|" + _QUOTED + b"))?"
_BARE_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + _EXTENSION + rb")*)\r\n")


class ChunkedBody:
    """Fed from the connection's buffer; raises `MalformedError`. `max_trailer_bytes` bounds what comes after it."""

    def __init__(self, *, max_trailer_bytes: int) -> None:
        self._max_trailer_bytes = max_trailer_bytes
        self._chunk_left = 0
        self._chunk_ends = False
        self._extension_bytes = 0
        self._in_trailers = False
        self.is_complete = False

    def take(self, unread: bytearray) -> bytearray:
        """Remove from `unread` what belongs to this body, and return the payload in it."""
        payload = bytearray()
        at = 0
        while not self.is_complete:
            if self._chunk_left:
                payload += unread[at : at + self._chunk_left]
                came = min(self._chunk_left, len(unread) - at)
                at += came
                self._chunk_left -= came
                self._chunk_ends = not self._chunk_left
            if self._chunk_ends:
                step = self._chunk_end(unread, at)
            elif self._in_trailers:
                step = self._trailers(unread, at)
            elif self._chunk_left:
                break
            else:
                at = _past_whole_chunks(unread, at, payload)
                step = self._size_line(unread, at)
            if not step:
                break
            at += step
        del unread[:at]
        return payload

    # Each returns how many bytes it has read past; 0 while they have not all come.

    def _chunk_end(self, unread: bytearray, at: int) -> int:
        if unread.startswith(b"\r\n", at):
            self._chunk_ends = False
            return 2
        if len(unread) - at > 1 or not b"\r".startswith(unread[at:]):
            raise MalformedError(400, "A chunk is longer than its size, or has no end.")
        return 0

    def _size_line(self, unread: bytearray, at: int) -> int:
        # No further: what the pattern remembers to come back to is a hundred times what it has read.
        line = _SIZE_LINE.match(unread, at, at + MAX_SIZE_LINE)
        if line is None:
            if unread.find(b"\n", at, at + MAX_SIZE_LINE) >= 0:
                raise MalformedError(400, "A chunk size is no hexadecimal number of up to 16 digits.")
            if len(unread) - at > MAX_SIZE_LINE:
                raise MalformedError(400, f"The line of a chunk's size is longer than {MAX_SIZE_LINE} bytes.")
            return 0
        self._extension_bytes += line.end(2) - line.start(2)
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise MalformedError(400, "The chunk extensions are too long.")
        self._chunk_left = int(line[1], 16)
        self._in_trailers = not self._chunk_left
        return line.end() - at

    def _trailers(self, unread: bytearray, at: int) -> int:
        """The section with its empty line. Its fields are dropped, as RFC 9110 §6.5.1 lets who knows none of them."""
        if unread.startswith(b"\r\n", at):
            self.is_complete = True
            return 2
        end = unread.find(b"\r\n\r\n", at)
        stop = len(unread) - unread.endswith(b"\r") if end < 0 else end + 4
        if stop - at > self._max_trailer_bytes:
            raise MalformedError(431, f"The trailers are larger than {self._max_trailer_bytes} bytes.")
        section = unread[at:stop]
        check_lines(section)
        if end < 0:
            return 0
        check_fields(section)
        self.is_complete = True
        return len(section)


def _past_whole_chunks(unread: bytearray, at: int, payload: bytearray) -> int:
    """The usual case in a few steps each: chunks that are all there and have no extension."""
    while (size_line := _BARE_SIZE_LINE.match(unread, at)) is not None:
        begin = size_line.end()
        end = begin + int(size_line[1], 16)
        if end == begin or not unread.startswith(b"\r\n", end):
            break
        payload += unread[begin:end]
        at = end + 2
    return at
