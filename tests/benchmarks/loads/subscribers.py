"""Subscribers that count, time or await what they are told, and what nodes must publish for it."""

import json
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import randrange
from statistics import quantiles
from typing import Any

from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Dial, Link, LoadBroken
from tests.benchmarks.loads.nodes import (
    FIRST_SEQ,
    array_of,
    devices_of,
    message_of,
    numbers,
    snapshots_of,
    telescope_uid,
    text,
)
from tests.benchmarks.wire import PING, PONG, TEXT, message, payloads, upgrade

SUBPROTOCOL = "skynet.internal.v1"
VALUE, EVENT, LIVE, GAP, ACK = (
    b'{"kind":"event_device_snapshot"',
    b'{"kind":"event_telescope_log"',
    b'{"kind":"event_live"',
    b'{"kind":"event_gap"',
    b'{"kind":"ack"',
)
SEQUENCE = slice(-12, -2)
"""Where a told value has its number: `data` comes last, and `sequence` last in it."""


def subscriber_dial(token: str) -> Dial:
    """A socket that asks for nothing yet."""
    opening = upgrade("/internal/ws/stream", token=token, subprotocol=SUBPROTOCOL)
    return Dial(opening, text({"kind": "ping", "id": "1"}), lambda first: b'"pong"' in first)


def asking(subscription_id: str, stream: str, wanted: dict[str, Any], options: dict[str, Any]) -> bytes:
    frame = {"kind": "subscribe_stream", "subscription_id": subscription_id, "stream": stream}
    return text({**frame, "filter": wanted, "options": options})


@dataclass(frozen=True)
class Want:
    """What a subscriber asks for: one value of one key, or everything."""

    key: str | None = None
    value: str = ""

    @property
    def filter(self) -> dict[str, list[str]]:
        return {} if self.key is None else {self.key: [self.value]}

    def fits(self, install_id: str, device: tuple[str, str]) -> bool:
        uid, device_type = device
        about = {"telescope_uid": telescope_uid(install_id), "device_type": device_type, "device_uid": uid}
        return self.key is None or about[self.key] == self.value


def different_wants(count: int, install_ids: Sequence[str]) -> list[Want]:
    """In turn: everything, one telescope, one type of device, one device; of one installation after the other."""
    wants: list[Want] = []
    for number, install_id in enumerate(islice(cycle(install_ids), count)):
        uid, device_type = devices_of(install_id)[number % len(devices_of(install_id))]
        kinds = (
            Want(),
            Want("telescope_uid", telescope_uid(install_id)),
            Want("device_type", device_type),
            Want("device_uid", uid),
        )
        wants.append(kinds[number % len(kinds)])
    return wants


class Subscriber:
    """One socket and what came on it; `told` is called with each value."""

    def __init__(self, link: Link, told: Callable[[bytes], None] = lambda _: None) -> None:
        self._link = link
        self._told = told
        self.values = self.events = self.lives = self.passed_over = 0
        self.position = ""
        """Of the last `event_live`."""

    def send(self, data: bytes) -> None:
        self._link.sock.send(data)

    def read(self) -> None:
        self._link.receive()
        for opcode, payload in payloads(self._link.unread):
            if payload.startswith(VALUE):
                self.values += 1
                self._told(payload)
            elif payload.startswith(EVENT):
                self.events += 1
            elif payload.startswith(LIVE):
                self.lives += 1
                self.position = json.loads(payload)["position"]
            elif payload.startswith(GAP):
                self.passed_over += json.loads(payload)["count"]
            elif opcode == PING:
                self.send(message(PONG, payload))
            elif opcode != TEXT or not payload.startswith(ACK):
                raise LoadBroken(f"not what a subscriber is told: {payload[:200]!r}")


class Bystander:
    """A node's socket; what it is sent is answered where it must be."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self) -> None:
        self._link.receive()
        for opcode, payload in payloads(self._link.unread):
            if opcode == PING:
                self._link.sock.send(message(PONG, payload))
            elif b'"error"' in payload:
                raise LoadBroken(f"not what is said to snapshots: {payload[:200]!r}")


def beginning() -> int:
    """Where to begin to count, so that no device says the same as when it was last here."""
    return randrange(FIRST_SEQ, 9 * FIRST_SEQ)  # noqa: S311 - that they differ is all


class Room:
    """Sockets that are read as they have something to say."""

    def __init__(self, readers: Sequence[tuple[Link, Callable[[], None]]]) -> None:
        self._poll = select.epoll()
        self._read = {link.fd: read for link, read in readers}
        for fd in self._read:
            self._poll.register(fd, select.EPOLLIN)

    def read(self, *, until: float | None = None) -> None:
        """What has come, or comes by `until`. Raises `LoadBroken` when nothing does, and nothing else is due."""
        wait = PATIENCE_S if until is None else max(0.0, until - time.perf_counter())
        events = self._poll.poll(wait)
        if not events and until is None:
            raise LoadBroken(f"nothing came in {PATIENCE_S:.0f} s")
        for fd, _ in events:
            self._read[fd]()


def follow(room: Room, subscribers: Sequence[Subscriber], wants: Sequence[Want]) -> None:
    """Each asks for the devices it wants, and is told that it is live; of what was before it is told nothing."""
    for subscriber, want in zip(subscribers, wants, strict=True):
        subscriber.send(asking("s", "device_snapshot", want.filter, {"include_existing": False}))
    while not all(subscriber.lives for subscriber in subscribers):
        room.read()


Publishers = Sequence[tuple[Link, str]]
"""The links of nodes, and which installations they are."""


def deliver(
    links: Sequence[Link], publishers: Publishers, wants: Sequence[Want], *, seconds: float, server: int
) -> dict[str, float]:
    """In each round every node says all of its devices in one array, and the next begins when everybody has been told
    all that it wants of this one: so nothing is passed over, and what is counted is what was asked for.
    """
    subscribers = [Subscriber(link) for link in links]
    room = Room(
        [
            *((link, subscriber.read) for link, subscriber in zip(links, subscribers, strict=True)),
            *((link, Bystander(link).read) for link, _ in publishers),
        ]
    )
    follow(room, subscribers, wants)
    arrays = [(link, snapshots_of(install_id)) for link, install_id in publishers]
    messages = [(link, message_of(array_of(frames), len(frames)), len(frames)) for link, frames in arrays]
    expected = sum(
        want.fits(install_id, device)
        for want in wants
        for _, install_id in publishers
        for device in devices_of(install_id)
    )
    seq = beginning()

    def one_round(number: int) -> None:
        nonlocal seq
        for link, template, count in messages:
            link.sock.send(template % numbers(range(seq, seq + count)))
            seq += count
        while sum(subscriber.values + subscriber.passed_over for subscriber in subscribers) < number * expected:
            room.read()

    one_round(1)
    rounds = 1
    began, cpu, own_cpu = time.perf_counter(), cpu_seconds(server), time.process_time()
    while time.perf_counter() - began < seconds:
        rounds += 1
        one_round(rounds)
    took = time.perf_counter() - began
    if any(subscriber.passed_over for subscriber in subscribers):
        raise LoadBroken("a value was passed over, though the one before had been told")
    told = (rounds - 1) * expected
    return {
        "per_s": told / took,
        "cpu_us": (cpu_seconds(server) - cpu) / told * 1_000_000,
        "load_busy": (time.process_time() - own_cpu) / took,
    }


def time_deliveries(
    links: Sequence[Link],
    publishers: Publishers,
    wants: Sequence[Want],
    *,
    rate: float,
    seconds: float,
    server: int,
) -> dict[str, float]:
    """`rate` snapshots a second, of one device after the other, each in a message; how long it takes from before it is
    sent until each subscriber that wants it has read it.
    """
    sent: dict[bytes, float] = {}
    taken: list[float] = []
    clock = time.perf_counter

    def told(payload: bytes) -> None:
        taken.append(clock() - sent[payload[SEQUENCE]])

    subscribers = [Subscriber(link, told) for link in links]
    room = Room(
        [
            *((link, subscriber.read) for link, subscriber in zip(links, subscribers, strict=True)),
            *((link, Bystander(link).read) for link, _ in publishers),
        ]
    )
    follow(room, subscribers, wants)
    turns = [
        (link, message_of(frame), sum(want.fits(install_id, device) for want in wants))
        for link, install_id in publishers
        for device, frame in zip(devices_of(install_id), snapshots_of(install_id), strict=True)
    ]
    first, cpu, began, expected = beginning(), cpu_seconds(server), clock(), 0
    for number, (link, template, wanted_by) in enumerate(islice(cycle(turns), max(1, int(rate * seconds)))):
        due = began + number / rate
        while clock() < due:
            room.read(until=due)
        seq = first + number
        data = template % numbers([seq])
        sent[b"%d" % seq] = clock()
        link.sock.send(data)
        expected += wanted_by
    while sum(subscriber.values + subscriber.passed_over for subscriber in subscribers) < expected:
        room.read()
    cuts = quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
    return {
        "p50_ms": cuts[49] * 1_000,
        "p99_ms": cuts[98] * 1_000,
        "cpu_us": (cpu_seconds(server) - cpu) / len(taken) * 1_000_000,
    }


def subscribe_on(links: Sequence[Link], stream: str, each: int, install_ids: Sequence[str]) -> None:
    """`each` subscriptions on each of these sockets, to a telescope each, until all are live."""
    subscribers = [Subscriber(link) for link in links]
    room = Room([(link, subscriber.read) for link, subscriber in zip(links, subscribers, strict=True)])
    telescopes = cycle(install_ids)
    for subscriber in subscribers:
        for number in range(each):
            wanted = {"telescope_uid": [telescope_uid(next(telescopes))]}
            before = subscriber.lives
            subscriber.send(asking(f"{stream} {number}", stream, wanted, {}))
            while subscriber.lives == before:
                room.read()


def log_position(link: Link) -> str:
    """Where the log is now."""
    subscriber = Subscriber(link)
    room = Room([(link, subscriber.read)])
    subscriber.send(asking("now", "telescope_log", {}, {}))
    while not subscriber.position:
        room.read()
    return subscriber.position


def resume(link: Link, after: str, events: int) -> float:
    """Seconds until a subscriber that comes back is told what it has missed, and that it is live."""
    subscriber = Subscriber(link)
    room = Room([(link, subscriber.read)])
    began = time.perf_counter()
    subscriber.send(asking("again", "telescope_log", {}, {"after": after}))
    while not subscriber.lives:
        room.read()
    took = time.perf_counter() - began
    if subscriber.events != events:
        raise LoadBroken(f"{subscriber.events} events came, and there are {events}")
    return took
