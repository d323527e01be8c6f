"""The bytes a WebSocket client sends and understands, made beforehand so that making them costs the load nothing."""

import struct
from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
MASKED = 0x80
NO_MASK = bytes(4)
"""A key of zeros leaves the payload as it is; a server must unmask it all the same (RFC 6455 §5.3)."""


def message(opcode: int, payload: bytes) -> bytes:
    """One unfragmented message from a client."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, MASKED | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x80 | opcode, MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, MASKED | 127, size)
    return head + NO_MASK + payload


def upgrade(path: str, *, token: str | None = None, subprotocol: str = "skynet.node.v1") -> bytes:
    """The handshake; with a token that of a node, or of who speaks another subprotocol."""
    named = f"authorization: Bearer {token}\r\nsec-websocket-protocol: {subprotocol}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{named}\r\n"
    ).encode()


def payloads(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Takes the whole messages of a server off the front of `buffer`. Servers here send nothing fragmented."""
    at = 0
    held = len(buffer)
    try:
        while held - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if held < start + size:
                return
            opcode, at = buffer[at] & 0x0F, start + size
            yield opcode, bytes(buffer[start:at])
    finally:
        del buffer[:at]
