"""Cuts what a peer sends into request heads and bodies, by RFC 9112 to the letter, before any parser sees it.

What lies behind a request stays here until that request is answered, so that the parser never holds more than one.
"""

import re

from skygw.serving.chunked_body import ChunkedBody
from skygw.serving.field_lines import TOKEN, MalformedError, check_lines

MAX_REQUEST_LINE = 8 * 1024
"""RFC 9112 §3 wants 8,000 octets at least to be taken."""

MAX_LENGTH_DIGITS = 18
TLS_HANDSHAKE = b"\x16\x03"

_REQUEST_LINE = re.compile(TOKEN + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]")
_FRAMING_FIELD = re.compile(rb"\r\n(content-length|transfer-encoding):[ \t]*([^\r]*)", re.IGNORECASE)


class SizedBody:
    """A body of a length that was declared."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_complete(self) -> bool:
        return not self._left

    def take(self, unread: bytearray) -> bytearray:
        """Remove from `unread` what belongs to this body, and return it."""
        payload = unread[: self._left]
        del unread[: self._left]
        self._left -= len(payload)
        return payload


class RequestFraming:
    """One connection's incoming bytes. Owned by its reader; raises `MalformedError`, and is of no use after that."""

    def __init__(self, *, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._unread = bytearray()
        self._checked = 0  # the part of an unfinished head whose lines were checked
        self._may_begin_blank = True
        self.body: SizedBody | ChunkedBody = SizedBody(0)
        """Of the head that was taken last."""

    @property
    def has_unread(self) -> bool:
        """Bytes lie here that belong to no request yet, or to the body of this one."""
        return bool(self._unread)

    def feed(self, data: bytes) -> None:
        self._unread += data

    def take_body(self) -> bytearray:
        """The payload that has come of the body so far and was not taken yet."""
        return self.body.take(self._unread)

    def take_head(self) -> bytes | None:
        """The next head with its empty line, once it is whole; `body` is then its body."""
        unread = self._unread
        if self._may_begin_blank and unread.startswith(b"\r\n"):
            # One is allowed: old clients sent it behind a body (RFC 9112 §2.2).
            del unread[:2]
            self._may_begin_blank = False
        end = unread.find(b"\r\n\r\n", max(0, self._checked - 3))
        if end < 0:
            self._check_unfinished()
            return None
        head = bytes(unread[: end + 4])
        check_lines(head)
        self._check_start(head)
        self.body = _body_of(head, max_trailer_bytes=self._max_head_bytes)
        del unread[: end + 4]
        self._checked = 0
        self._may_begin_blank = True
        return head

    def _check_unfinished(self) -> None:
        """What is wrong already need not be waited for."""
        unread = self._unread
        if unread.startswith(TLS_HANDSHAKE):
            raise MalformedError(400, "TLS was spoken to a port that speaks HTTP in the clear.")
        stop = len(unread) - unread.endswith(b"\r")
        check_lines(unread[self._checked : stop])
        self._check_start(unread)
        # A fold is seen only together with the line break before it.
        self._checked = stop - 2 * unread.endswith(b"\r\n")

    def _check_start(self, head: bytes | bytearray) -> None:
        """The sizes and the request line of a head, whole or not (RFC 9112 §3, RFC 6585 §5)."""
        line_end = head.find(b"\r\n")
        most = min(MAX_REQUEST_LINE, self._max_head_bytes)
        if (len(head) if line_end < 0 else line_end) > most:
            raise MalformedError(414, f"The request line is longer than {most} bytes.")
        if len(head) > self._max_head_bytes:
            raise MalformedError(431, f"The request head is larger than {self._max_head_bytes} bytes.")
        if line_end >= 0 and _REQUEST_LINE.fullmatch(head, 0, line_end) is None:
            raise MalformedError(400, "The request line is not one of HTTP/1.")


def _body_of(head: bytes, *, max_trailer_bytes: int) -> SizedBody | ChunkedBody:
    """RFC 9112 §6.3, refusing wherever it leaves a choice between refusing and repairing."""
    fields = _FRAMING_FIELD.findall(head)
    if not fields:
        return SizedBody(0)
    lengths = [value.strip(b" \t") for name, value in fields if name.lower() == b"content-length"]
    if len(lengths) < len(fields):
        if lengths:
            raise MalformedError(400, "Content-Length and Transfer-Encoding exclude each other.")
        _check_codings(head, [value for _, value in fields])
        return ChunkedBody(max_trailer_bytes=max_trailer_bytes)
    length = lengths[0]
    if len(lengths) > 1:
        raise MalformedError(400, "Content-Length was sent twice.")
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        raise MalformedError(400, "The Content-Length is no number of bytes.")
    return SizedBody(int(length))


def _check_codings(head: bytes, values: list[bytes]) -> None:
    """RFC 9112 §6.1, §6.3: only `chunked`, and that once."""
    codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    if head[: head.find(b"\r\n")].endswith(b" HTTP/1.0"):
        raise MalformedError(400, "HTTP/1.0 has no Transfer-Encoding.")
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise MalformedError(
            400, "Where this body ends cannot be known: its last transfer coding must be chunked, once."
        )
    if len(codings) > 1:
        raise MalformedError(501, "No transfer coding but chunked is known here.")
