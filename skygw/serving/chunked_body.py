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
                piece = unread[at : at + self._chunk_left]
                payload += piece
                at += len(piece)
                self._chunk_left -= len(piece)
                self._chunk_ends = not self._chunk_left
                step = self._chunk_ends
            elif self._chunk_ends:
                step = self._past_chunk_end(unread, at)
                at += 2 * step
            elif self._in_trailers:
                size = self._trailers(unread, at)
                at += size
                step = size > 0
            else:
                size = self._size_line(unread, at)
                at += size
                step = size > 0
            if not step:
                break
        del unread[:at]
        return payload

    def _past_chunk_end(self, unread: bytearray, at: int) -> bool:
        end = unread[at : at + 2]
        if not b"\r\n".startswith(end):
            raise MalformedError(400, "A chunk is longer than its size, or has no end.")
        self._chunk_ends = len(end) < 2
        return not self._chunk_ends

    def _size_line(self, unread: bytearray, at: int) -> int:
        """Its length; 0 while it is not whole."""
        line = _SIZE_LINE.match(unread, at)
        if line is None:
            if unread.find(b"\n", at) >= 0 or len(unread) - at > MAX_SIZE_LINE:
                raise MalformedError(400, "A chunk size is no hexadecimal number of up to 16 digits.")
            return 0
        self._extension_bytes += line.end(2) - line.start(2)
        if line.end() - at > MAX_SIZE_LINE or self._extension_bytes > MAX_EXTENSION_BYTES:
            raise MalformedError(400, "The chunk extensions are too long.")
        self._chunk_left = int(line[1], 16)
        self._in_trailers = not self._chunk_left
        return line.end() - at

    def _trailers(self, unread: bytearray, at: int) -> int:
        """The length of the trailer section with its empty line; 0 while it is not whole. Its fields are dropped, as a
        recipient may that knows none of them (RFC 9110 §6.5.1).
        """
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
