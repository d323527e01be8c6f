"""Installations that cost next to nothing: they answer direct requests or publish snapshots in ready-made bytes."""

import hashlib
import json
import socket
from itertools import chain
from typing import Any
from uuid import UUID, uuid4, uuid5

from tests.benchmarks.loads.dialing import Dial, Link, LoadBroken
from tests.benchmarks.wire import BINARY, PING, PONG, TEXT, message, payloads, upgrade

ANSWER = b"x" * 200
"""What a direct request is answered with."""

SHA256 = hashlib.sha256(ANSWER).hexdigest()

DEVICES = 10
BURST = 20
"""Snapshots in one write, followed by a ping whose pong says that all of them were taken."""

BURSTS_UNDER_WAY = 2
SEND_BUFFER_BYTES = 512 * 1024

_FIRST_SEQ = 1_000_000_000


def text(frame: dict[str, Any]) -> bytes:
    return message(TEXT, json.dumps(frame, separators=(",", ":")).encode())


def hello(install_id: str) -> bytes:
    """A `hello` of a machine and an outbox that were never seen before."""
    uids = {name: str(uuid4()) for name in ("instance_uid", "boot_id", "outbox_uid")}
    frame = {"kind": "hello", "install_id": install_id, "node_type": "telescope", "software_version": "1", **uids}
    return text(frame)


def node_dial(install_id: str, token: str) -> Dial:
    return Dial(upgrade("/v1/ws/node", token=token), hello(install_id), lambda first: b'"welcome"' in first)


def in_three(call_id: str) -> bytes:
    """The whole response as the contract has it: start, one chunk, end."""
    start = {"kind": "direct_response_start", "id": call_id, "content_type": "application/octet-stream"}
    end = {"kind": "direct_response_end", "id": call_id, "chunks": 1, "total_size": len(ANSWER), "sha256": SHA256}
    chunk = UUID(call_id).bytes + bytes(4) + ANSWER
    return text({**start, "total_size": len(ANSWER)}) + message(BINARY, chunk) + text(end)


def in_one(call_id: str) -> bytes:
    """The same in one frame, as a gateway without a contract about streaming would have it."""
    frame = {"kind": "direct_response", "id": call_id, "content_type": "application/octet-stream"}
    return text({**frame, "data": ANSWER.decode()})


class AnsweringNode:
    """Answers each direct request at once; all that came in one read in one write."""

    def __init__(self, link: Link, *, in_one_frame: bool) -> None:
        self._link = link
        self._answer = in_one if in_one_frame else in_three

    def read(self) -> None:
        self._link.receive()
        replies = b"".join(_reply(*said, self._answer) for said in payloads(self._link.unread))
        if replies:
            self._link.sock.sendall(replies)


def _reply(opcode: int, payload: bytes, answer: Any) -> bytes:
    if opcode == PING:
        return message(PONG, payload)
    if b'"direct_request"' in payload:
        reply: bytes = answer(json.loads(payload)["id"])
        return reply
    return b""


def device_uids(install_id: str) -> list[str]:
    """What this installation publishes snapshots of: a hub that keeps records must have these in them."""
    return [str(uuid5(UUID(install_id), f"device {number}")) for number in range(DEVICES)]


class PublishingNode:
    """Publishes bursts of snapshots of its devices, at most `BURSTS_UNDER_WAY` of them not yet taken."""

    def __init__(self, link: Link, install_id: str) -> None:
        self._link = link
        self._burst = _burst_template(device_uids(install_id))
        self._seq = _FIRST_SEQ
        self.under_way = 0
        self.bursts_taken = 0
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    @property
    def last_observed(self) -> bytes:
        """How the time of its last snapshot ends, wherever that is shown."""
        return b".%06dZ" % ((self._seq - 1) % 1_000_000)

    def publish(self) -> None:
        while self.under_way < BURSTS_UNDER_WAY:
            seqs = range(self._seq, self._seq + BURST)
            self._seq += BURST
            data = self._burst % tuple(chain.from_iterable((seq % 1_000_000, seq) for seq in seqs))
            if self._link.sock.send(data) != len(data):
                raise LoadBroken("the kernel did not take a whole burst")
            self.under_way += 1

    def read(self) -> None:
        self._link.receive()
        for opcode, payload in payloads(self._link.unread):
            if opcode == TEXT and b'"pong"' in payload:
                self.under_way -= 1
                self.bursts_taken += 1
            elif opcode == PING:
                self._link.sock.send(message(PONG, payload))
            elif opcode != TEXT or b'"error"' in payload:
                raise LoadBroken(f"not what is said to snapshots: {payload[:200]!r}")


def _burst_template(uids: list[str]) -> bytes:
    """`BURST` messages, each with places for two numbers that keep their width, and a ping."""
    frames = [snapshot_template(uids[number % DEVICES]) for number in range(BURST)]
    return b"".join(_message_of(frame) for frame in frames) + text({"kind": "ping", "id": "burst"})


def snapshot_template(uid: str) -> bytes:
    """A mount's state, in about 350 bytes; what it lacks are the microseconds of its time and its number."""
    data = {
        "uid": uid,
        "device_type": "mount",
        "is_connected": True,
        "status": "tracking",
        "ra_hours": 16.694911,
        "dec_degs": 36.461316,
        "altitude_degs": 61.284,
        "azimuth_degs": 274.017,
        "is_parked": False,
    }
    frame = {"kind": "publish_snapshot", "stream": "device_snapshot", "data": data, "max_silence_s": 30.0}
    head = json.dumps(frame, separators=(",", ":")).removesuffix("}").encode()
    return head + b',"observed_at":"2026-11-22T06:00:00.%06dZ","live_seq":%10d}'


def _message_of(template: bytes) -> bytes:
    size = len(template % (0, _FIRST_SEQ))
    return message(TEXT, bytes(size))[:-size] + template
