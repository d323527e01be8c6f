"""The installation behind the direct requests that are measured: answers each at once, at the least cost."""

import hashlib
import json
import sys
from typing import Any
from uuid import UUID, uuid4

import trio

from tests.benchmarks.plan import PAYLOAD_BYTES
from tests.benchmarks.raw_websocket import BINARY, TEXT, RawWebSocket, WebSocketEnded, message, raw_websocket

PAYLOAD = b"x" * PAYLOAD_BYTES
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


def text(frame: dict[str, Any]) -> bytes:
    return message(TEXT, json.dumps(frame).encode())


def hello(install_id: str) -> bytes:
    """A `hello` of a machine and an outbox that were never seen before."""
    uids = {name: str(uuid4()) for name in ("instance_uid", "boot_id", "outbox_uid")}
    frame = {"kind": "hello", "install_id": install_id, "node_type": "telescope", "software_version": "1", **uids}
    return text(frame)


def answer(call_id: str) -> bytes:
    """The whole response: start, one chunk, end."""
    start = {"kind": "direct_response_start", "id": call_id, "content_type": "application/octet-stream"}
    end = {"kind": "direct_response_end", "id": call_id, "chunks": 1, "total_size": len(PAYLOAD), "sha256": SHA256}
    chunk = UUID(call_id).bytes + bytes(4) + PAYLOAD
    return text({**start, "total_size": len(PAYLOAD)}) + message(BINARY, chunk) + text(end)


async def converse(socket: RawWebSocket, install_id: str) -> None:
    await socket.send(hello(install_id))
    while True:
        frame = json.loads(await socket.receive())
        match frame["kind"]:
            case "direct_request":
                await socket.send(answer(frame["id"]))
            case "ping":
                await socket.send(text({"kind": "pong", "id": frame["id"]}))
            case "welcome":
                sys.stdout.write(json.dumps({"welcomed": True}) + "\n")
                sys.stdout.flush()


async def main(url: str, token: str, install_id: str) -> None:
    """Connects, says in one line that it was welcomed, and answers until it is ended."""
    try:
        async with raw_websocket(url, token=token) as socket:
            await converse(socket, install_id)
    except WebSocketEnded as ended:
        sys.exit(f"the node's link ended: {ended}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
