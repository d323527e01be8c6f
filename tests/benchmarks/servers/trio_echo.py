"""The echo on a bare Trio loop, for orientation: a handshake, the framing of short messages, and nothing else."""

import re
from base64 import b64encode
from functools import partial
from hashlib import sha1

import trio

from tests.benchmarks.servers.listening import listening, say_ready

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def switching(head: bytes, subprotocol: str = "") -> bytes:
    """The answer to a handshake."""
    key = KEY.search(head)
    assert key is not None, "no WebSocket handshake"
    accept = b64encode(sha1(key[1] + GUID).digest())  # noqa: S324 - RFC 6455 §4.2.2 wants it
    chosen = f"sec-websocket-protocol: {subprotocol}\r\n".encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n" + chosen + b"\r\n"
    )


async def serve(stream: trio.SocketStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some()
        if not data:
            return
        head += data
    await stream.send_all(switching(head))
    unread = head.partition(b"\r\n\r\n")[2]
    while data := await stream.receive_some():
        unread += data
        answer = b""
        while len(unread) >= 8:
            size, start = unread[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(unread[2:4], "big"), 4
            end = start + 4 + size
            if len(unread) < end:
                break
            text = unmasked(unread[start + 4 : end], unread[start : start + 4])
            length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            answer += unread[:1] + length + text
            unread = unread[end:]
        if answer:
            await stream.send_all(answer)


async def guarded(stream: trio.SocketStream) -> None:
    try:
        await serve(stream)
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def main() -> None:
    sock = listening()
    say_ready(sock.getsockname()[1])
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    await trio.serve_listeners(guarded, [listener])


if __name__ == "__main__":
    trio.run(partial(main))
