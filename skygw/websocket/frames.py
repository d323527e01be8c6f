"""RFC 6455 frames without any I/O: bytes in, messages and control frames out, and the other way round."""

import codecs
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from websockets.frames import apply_mask  # type: ignore[attr-defined] # in C where it was built; pinned by a test

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RESERVED, MASKED = 0x80, 0x70, 0x80
MAX_CONTROL_BYTES: Final = 125
MAX_HEAD_BYTES: Final = 14


class Code(IntEnum):
    """The close codes this room says of itself (RFC 6455 §7.4.1 and the IANA registry)."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    """Never sent: the peer's close frame held no code."""
    ABNORMAL = 1006
    """Never sent: the connection ended without a close frame."""
    NOT_UTF8 = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's goodbye; `code` is 1005 when it gave none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """The peer broke a rule: nothing behind it is read. `code` is what RFC 6455 says to close with."""

    code: Code
    reason: str


Event: TypeAlias = str | bytes | Ping | Pong | Close | Flaw


class FrameReader:
    """Makes whole messages of the bytes of one direction.

    Holds at most one message, of `max_message_bytes`, and the head of one frame. Text that cannot become UTF-8 is
    noticed at its first wrong byte, also within a frame (RFC 6455 §8.1). After `Close` or `Flaw` nothing more is read.
    """

    __slots__ = (
        "_decoder",
        "_is_last",
        "_left",
        "_mask",
        "_masked",
        "_max",
        "_message",
        "_opcode",
        "_over",
        "_unread",
    )

    def __init__(self, *, masked: bool, max_message_bytes: int) -> None:
        self._masked = masked
        self._max = max_message_bytes
        self._unread = b""  # the beginning of a head, or of a control frame
        self._message: bytearray | None = None  # begun and not finished
        self._opcode = 0  # of the message that is begun
        self._decoder: codecs.IncrementalDecoder | None = None
        self._left = 0  # bytes of the frame that is begun
        self._mask = b""
        self._is_last = False
        self._over = False

    @property
    def is_over(self) -> bool:
        """The peer has closed, or broken a rule."""
        return self._over

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order; a `Close` or `Flaw` is the last one ever."""
        events: list[Event] = []
        if self._over:
            return events
        if self._unread:
            data = self._unread + data
            self._unread = b""
        try:
            self._read(data, events)
        except _FlawError as error:
            self._over = True
            self._message = None
            events.append(error.flaw)
        return events

    def _read(self, data: bytes, events: list[Event]) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._left:
                at = self._continue_frame(data, at, end, events)
                continue
            if end - at < 2:
                break
            first, size = data[at], data[at + 1]
            start = at + 2
            if (size & MASKED != 0) is not self._masked:
                raise _broken("a frame that is not masked" if self._masked else "a masked frame")
            size &= 0x7F
            if size >= 126:
                wide = 2 if size == 126 else 8
                if end - start < wide:
                    break
                size = int.from_bytes(data[start : start + wide])
                start += wide
                if size < 126 or (wide == 8 and not 0xFFFF < size < 1 << 63):
                    raise _broken("a length that is not written in its shortest form")
            mask = b""
            if self._masked:
                mask = data[start : start + 4]
                start += 4
                if start > end:
                    break
            opcode = first & 0x0F
            if first & RESERVED:
                raise _broken("a reserved bit: no extension was agreed on")
            if opcode >= CLOSE:
                if opcode > PONG or not first & FIN or size > MAX_CONTROL_BYTES:
                    raise _broken("a control frame that is fragmented, longer than 125 bytes or of no known kind")
                if end - start < size:
                    break
                at = start + size
                payload = data[start:at]
                events.append(_control(opcode, apply_mask(payload, mask) if mask else payload))
                if opcode == CLOSE:
                    self._over = True
                    self._message = None
                    return
                continue
            if opcode > BINARY or (opcode == CONTINUATION) is (self._message is None):
                raise _broken("a continuation of nothing, a message within a message, or an opcode of no known kind")
            if size + (0 if self._message is None else len(self._message)) > self._max:
                raise _FlawError(Flaw(Code.TOO_BIG, f"a message is larger than {self._max} bytes"))
            if first & FIN and opcode and size <= end - start:  # what nearly every message is
                at = start + size
                payload = data[start:at]
                if mask:
                    payload = apply_mask(payload, mask)
                events.append(payload if opcode == BINARY else _text(payload))
                continue
            if self._message is None:
                self._message = bytearray()
                self._opcode = opcode
                self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
            self._left, self._mask, self._is_last = size, mask, first & FIN != 0
            at = start
            if not size:
                self._end_frame(events)
        if at < end:
            self._unread = data[at:]

    def _continue_frame(self, data: bytes, at: int, end: int, events: list[Event]) -> int:
        taken = min(self._left, end - at)
        piece: bytes | memoryview = memoryview(data)[at : at + taken]
        if self._mask:
            piece = apply_mask(piece, self._mask)
            turned = taken % 4
            self._mask = self._mask[turned:] + self._mask[:turned]
        if self._decoder is not None:
            try:
                self._decoder.decode(bytes(piece))
            except UnicodeDecodeError:
                raise _not_utf8() from None
        if self._message is not None:
            self._message += piece
        self._left -= taken
        if not self._left:
            self._end_frame(events)
        return at + taken

    def _end_frame(self, events: list[Event]) -> None:
        if not self._is_last or self._message is None:
            return
        message, self._message = bytes(self._message), None
        self._decoder = None
        events.append(message if self._opcode == BINARY else _text(message))


class _FlawError(Exception):
    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.reason)
        self.flaw = flaw


def _broken(what: str) -> _FlawError:
    return _FlawError(Flaw(Code.PROTOCOL_ERROR, f"broken framing: {what}"))


def _not_utf8() -> _FlawError:
    return _FlawError(Flaw(Code.NOT_UTF8, "a text that is not UTF-8"))


def _text(payload: bytes) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _control(opcode: int, payload: bytes) -> Event:
    if opcode == PING:
        return Ping(payload)
    if opcode == PONG:
        return Pong(payload)
    if not payload:
        return Close(Code.NO_STATUS, "")
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not may_be_received(code):
        raise _broken("a close code that no peer may send")
    return Close(code, _text(payload[2:]))


def may_be_received(code: int) -> bool:
    """Whether a close frame may carry it: the defined ones, and those for libraries and private use (RFC 6455 §7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def frame(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One whole frame. A client gives four unpredictable bytes as `mask` (RFC 6455 §5.3), a server none."""
    size, bit = len(payload), 0 if mask is None else MASKED
    if size < 126:
        head = bytes((FIN | opcode, bit | size))
    elif size < 65_536:
        head = struct.pack("!BBH", FIN | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", FIN | opcode, bit | 127, size)
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


def message_frame(message: str | bytes, mask: bytes | None = None) -> bytes:
    """A text or binary message as one frame."""
    if isinstance(message, str):
        return frame(TEXT, message.encode(), mask)
    return frame(BINARY, message, mask)


def close_payload(code: int, reason: str) -> bytes:
    """The body of a close frame; a reason that is too long is cut at a character (RFC 6455 §5.5)."""
    if code == Code.NO_STATUS:
        return b""
    fitted = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore")
    return struct.pack("!H", code) + fitted.encode()
