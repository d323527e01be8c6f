"""Installations that cost next to nothing: they answer direct requests or publish snapshots in ready-made bytes."""

import hashlib
import json
import socket
from collections.abc import Iterable
from itertools import chain
from typing import Any
from uuid import UUID, uuid4, uuid5

from tests.benchmarks.loads.dialing import Dial, Link, LoadBroken
from tests.benchmarks.wire import BINARY, PING, PONG, TEXT, message, payloads, upgrade

ANSWER = b"x" * 200
"""What a direct request is answered with."""

SHA256 = hashlib.sha256(ANSWER).hexdigest()

DEVICE_TYPES = (
    "mount",
    "camera",
    "filter_wheel",
    "focuser",
    "rotator",
    "guider",
    "cover",
    "dew_heater",
    "power_switch",
    "weather_station",
    "sky_quality_meter",
)
"""A telescope has one of each."""

BURST = 2 * len(DEVICE_TYPES)
"""Snapshots in one write, each in a message or the devices in an array, followed by a ping whose pong says that all of
them were taken.
"""

BURSTS_UNDER_WAY = 2
SEND_BUFFER_BYTES = 512 * 1024

FIRST_SEQ = 1_000_000_000


def text(frame: dict[str, Any]) -> bytes:
    return message(TEXT, json.dumps(frame, separators=(",", ":")).encode())


def hello(install_id: str) -> bytes:
    """A `hello` of this installation's one machine, started anew with an outbox that was never seen before."""
    uids = {"instance_uid": install_id, "boot_id": str(uuid4()), "outbox_uid": str(uuid4())}
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


def telescope_uid(install_id: str) -> str:
    """The telescope of an installation, as `make_known` has it."""
    return str(UUID(int=UUID(install_id).int ^ 1))


def devices_of(install_id: str) -> list[tuple[str, str]]:
    """What this installation publishes snapshots of, uids and types: a hub that keeps records must have these."""
    return [(str(uuid5(UUID(install_id), device_type)), device_type) for device_type in DEVICE_TYPES]


class PublishingNode:
    """Publishes bursts of snapshots of its devices, at most `BURSTS_UNDER_WAY` of them not yet taken."""

    def __init__(self, link: Link, install_id: str, *, in_arrays: bool = False) -> None:
        self._link = link
        self._burst = _burst_template(install_id, in_arrays=in_arrays)
        self._seq = FIRST_SEQ
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
            data = self._burst % numbers(seqs)
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


def numbers(seqs: Iterable[int]) -> tuple[int, ...]:
    """What snapshots lack, for as many of them in a row."""
    return tuple(chain.from_iterable((seq, seq % 1_000_000, seq) for seq in seqs))


def _burst_template(install_id: str, *, in_arrays: bool) -> bytes:
    """`BURST` snapshots in messages with places for three numbers each, and a ping."""
    once = snapshots_of(install_id)
    messages = [message_of(array_of(once), len(once))] if in_arrays else [message_of(frame) for frame in once]
    return b"".join(messages) * (BURST // len(once)) + text({"kind": "ping", "id": "burst"})


def snapshots_of(install_id: str) -> list[bytes]:
    """One of each device."""
    telescope = telescope_uid(install_id)
    return [snapshot_template(uid, device_type, telescope) for uid, device_type in devices_of(install_id)]


def snapshot_template(uid: str, device_type: str, telescope: str) -> bytes:
    """A device's state, in about 430 bytes; what it lacks are a number that makes it another than the one before, the
    microseconds of its time, and its number among all; `numbers` has them, in numbers that keep their width.
    """
    data = {
        "uid": uid,
        "device_type": device_type,
        "telescope_uid": telescope,
        "is_connected": True,
        "status": "tracking",
        "ra_hours": 16.694911,
        "dec_degs": 36.461316,
        "altitude_degs": 61.284,
        "azimuth_degs": 274.017,
    }
    frame = {"kind": "publish_snapshot", "stream": "device_snapshot", "max_silence_s": 3_600.0, "data": data}
    head = json.dumps(frame, separators=(",", ":")).removesuffix("}}").encode()
    return head + b',"sequence":%10d},"observed_at":"2026-11-22T06:00:00.%06dZ","live_seq":%10d}'


def array_of(frames: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(frames) + b"]"


def message_of(template: bytes, snapshots: int = 1) -> bytes:
    """A message of so many snapshots, with the places for their numbers."""
    size = len(template % numbers([FIRST_SEQ] * snapshots))
    return message(TEXT, bytes(size))[:-size] + template
