"""Peers that send exactly the bytes they are told to: a WebSocket client that may break every rule of RFC 6455."""

import ctypes
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

import trio

from tests.serving.served import Peer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The sample of RFC 6455 §1.3."""


class Op(IntEnum):
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


def frame(op: Op, payload: bytes = b"", *, is_last: bool = True, is_packed: bool = False) -> bytes:
    """As a client sends it, masked with zeros, which leaves the payload as it is."""
    first = op | (0x80 if is_last else 0) | (0x40 if is_packed else 0)
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


def goodbye(code: int, reason: str = "") -> bytes:
    return frame(Op.CLOSE, struct.pack("!H", code) + reason.encode())


def upgrade(path: str, *lines: str) -> bytes:
    """An upgrade's head; `lines` stand behind those it needs."""
    head = [
        f"GET {path} HTTP/1.1",
        "Host: here",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


SO_ATTACH_FILTER = 26
"""Linux, socket(7); the socket module does not name it."""
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the classic packet filter: return 0, keep nothing."""


def vanish(transport: trio.SocketStream) -> None:
    """From now on this peer hears nothing and acknowledges nothing, as when a cable was pulled; it says nothing either.

    Its kernel drops what comes for this socket; no rights are needed for that.
    """
    program = ctypes.create_string_buffer(DROP_ALL)
    # struct sock_fprog: how many instructions, and where they are.
    told = struct.pack("HP", 1, ctypes.addressof(program))
    transport.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, told)


@dataclass(frozen=True)
class Frame:
    """One from the server, whole: servers here send nothing in fragments."""

    op: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame; 1005 where it says nothing (RFC 6455 §7.1.5)."""
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else 1005


NO_CODE = 1006
"""What one says of a connection that ended without a close frame (RFC 6455 §7.1.5)."""


class WebSocketPeer:
    """A connection that was upgraded. It answers nothing by itself: neither pings nor goodbyes."""

    def __init__(self, peer: Peer, head: bytes) -> None:
        self.peer = peer
        self.head = head

    async def send(self, op: Op, payload: bytes = b"") -> None:
        await self.peer.send(frame(op, payload))

    async def next_frame(self) -> Frame | None:
        """None at the end of the stream."""
        head = await self.peer.read_exactly(2)
        if len(head) < 2:
            return None
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.peer.read_exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.peer.read_exactly(8))
        return Frame(head[0] & 0x0F, await self.peer.read_exactly(size))

    async def next_of(self, *ops: Op) -> Frame | None:
        """The next frame of one of these kinds; the others are passed over."""
        while True:
            found = await self.next_frame()
            if found is None or found.op in ops:
                return found

    async def close_code(self) -> int:
        """How the server ends the conversation, whatever it still says before."""
        found = await self.next_of(Op.CLOSE)
        return NO_CODE if found is None else found.code
