"""Askers that ask again as soon as they are answered: the loop of every round trip that is measured.

Plain sockets under one epoll, bytes made beforehand, answers known by their size: about 2 µs of Python and two system
calls for each round trip.
"""

import re
import select
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles

from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Link, LoadBroken
from tests.benchmarks.wire import PING, PONG, message

WARM_UP = 0.2
"""The part of each load whose round trips are not counted."""

UNCHANGED = b"HTTP/1.1 304"
"""An answer without a body, and without a length."""

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

HEAD_BYTES = 12
"""What is looked at of each answer: the status of an HTTP answer, the head of a frame and its first bytes."""

RECEIVE_SPARE_BYTES = 256
PING_MARK = bytes((0x80 | PING,))


def ask(
    links: Sequence[Link],
    request: bytes,
    *,
    answer: bytes,
    seconds: float,
    server: int,
    others: Mapping[int, Callable[[], None]] | None = None,
) -> dict[str, float]:
    """One request at a time on each link, for `seconds` and until one of each was counted. Every answer must be as long
    as `answer` and begin like it. `others` are called when their descriptor can be read. Raises `LoadBroken`.

    Returns round trips per second, median and 99th percentile in milliseconds, the CPU time that process `server` took
    for each in microseconds, and how much of its core this process used.
    """
    bystanders = others or {}
    poll = select.epoll()
    for fd in (*bystanders, *(link.fd for link in links)):
        poll.register(fd, select.EPOLLIN)
    by_fd = {link.fd: link for link in links}
    receive = {link.fd: link.sock.recv_into for link in links}
    send = {link.fd: link.sock.send for link in links}
    missing = {link.fd: len(answer) for link in links}
    head, size = answer[:HEAD_BYTES], len(answer)
    buffer = bytearray(size + RECEIVE_SPARE_BYTES)
    taken: list[float] = []
    answers = 0
    clock = time.perf_counter

    cpu_began, server_began = time.process_time(), cpu_seconds(server)
    began = clock()
    counted_from, until = began + WARM_UP * seconds, began + seconds
    sent: dict[int, float] = {}
    for link in links:
        sent[link.fd] = clock()
        link.sock.send(request)
    asking = len(links)
    while asking:
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken(f"{asking} of {len(links)} askers got no answer, or not one of {size} bytes")
        for fd, _ in events:
            if fd in bystanders:
                bystanders[fd]()
                continue
            count = receive[fd](buffer)
            is_first = missing[fd] == size
            if count > missing[fd] or (is_first and buffer[:count][: len(head)] != head[:count]) or not count:
                count = _without_ping(by_fd[fd], bytes(buffer[:count]), head if is_first else b"", missing[fd])
            missing[fd] -= count
            if missing[fd]:
                continue
            missing[fd] = size
            answers += 1
            now = clock()
            is_counted = sent[fd] >= counted_from
            if is_counted:
                taken.append(now - sent[fd])
            if now < until or not is_counted:
                sent[fd] = now
                send[fd](request)
            else:
                asking -= 1
    over = clock()
    poll.close()
    cuts = quantiles(taken, n=100) if len(taken) > 1 else [0.0] * 99
    return {
        "per_s": len(taken) / (over - counted_from),
        "p50_ms": cuts[49] * 1_000,
        "p99_ms": cuts[98] * 1_000,
        "cpu_us": (cpu_seconds(server) - server_began) / answers * 1_000_000,
        "load_busy": (time.process_time() - cpu_began) / (over - began),
    }


def _without_ping(link: Link, data: bytes, head: bytes, missing: int) -> int:
    """How much of `data` is the answer's, without a ping before or behind it; that is answered. Raises `LoadBroken`."""
    if data[:1] == PING_MARK and head:
        size = 2 + (data[1] if len(data) > 1 else 0)
        ping, rest = data[:size], data[size:]
    else:
        ping, rest = data[missing:], data[:missing]
    whole_ping = ping[:1] == PING_MARK and len(ping) > 1 and len(ping) == 2 + ping[1]
    if not whole_ping or len(rest) > missing or rest[: len(head)] != head[: len(rest)]:
        raise LoadBroken(f"not the answer that is measured: {data[:200]!r}")
    link.sock.send(message(PONG, ping[2:]))
    return len(rest)


def learn(link: Link, request: bytes, *, others: Mapping[int, Callable[[], None]] | None = None) -> bytes:
    """Asks once over HTTP and returns the whole answer, which those that follow are compared with."""
    bystanders = others or {}
    poll = select.epoll()
    for fd in (*bystanders, link.fd):
        poll.register(fd, select.EPOLLIN)
    link.sock.send(request)
    while (answer := whole_answer(link.unread)) is None:
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken(f"no whole answer, only {bytes(link.unread[:200])!r}")
        for fd, _ in events:
            if fd in bystanders:
                bystanders[fd]()
            else:
                link.receive()
    poll.close()
    link.unread.clear()
    if not answer.startswith((b"HTTP/1.1 20", UNCHANGED)):
        raise LoadBroken(f"not the answer that is measured: {answer[:500]!r}")
    return answer


def whole_answer(unread: bytearray) -> bytes | None:
    """An HTTP answer with its head, or nothing while some of it is missing. Raises `LoadBroken`."""
    end = unread.find(b"\r\n\r\n")
    if end < 0:
        return None
    if unread.startswith(UNCHANGED):
        return bytes(unread)
    length = LENGTH.search(unread, 0, end + 2)
    if length is None:
        raise LoadBroken(f"an answer without a length: {bytes(unread[:200])!r}")
    size = end + 4 + int(length[1])
    return bytes(unread) if len(unread) >= size else None


def http_request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    """A request of a service."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
