"""Nodes that report durable log lines as fast as they are acknowledged."""

import json
import re
import select
import socket
import time
from collections.abc import Sequence
from math import inf

from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Link, LoadBroken
from tests.benchmarks.loads.nodes import SEND_BUFFER_BYTES
from tests.benchmarks.wire import PING, PONG, TEXT, message, payloads

LINES = 64
"""In one write, each in a message."""

UNACKED = 2 * LINES
"""What a node has under way."""

_ACKED = re.compile(rb'"kind":"ack","seq":(\d+)')


def _line() -> bytes:
    data = {
        "level": "info",
        "logger": "observing.sequencer",
        "message": "Frame 17 of 40 is written: 180 s, filter r, HFD 2.31 px, guiding RMS 0.41 arcsec.",
    }
    frame = {"kind": "publish_log", "data": data, "observed_at": "2026-11-22T06:00:00.123456Z"}
    head = json.dumps(frame, separators=(",", ":")).removesuffix("}").encode()
    template = head + b',"seq":%10d}'  # filled with blanks, which are nothing to JSON
    size = len(template % 1)
    return message(TEXT, bytes(size))[:-size] + template


class ReportingNode:
    """Sends log lines, `UNACKED` of them and no more before they are acknowledged, and `at_most` in all."""

    def __init__(self, link: Link, at_most: int | None = None) -> None:
        self._link = link
        self._lines = _line() * LINES
        self._at_most = at_most
        self.sent = 0
        self.acked = 0
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def report(self) -> None:
        while self.sent - self.acked <= UNACKED - LINES:
            count = LINES if self._at_most is None else min(LINES, self._at_most - self.sent)
            if not count:
                return
            lines = self._lines if count == LINES else self._lines[: len(self._lines) // LINES * count]
            data = lines % tuple(range(self.sent + 1, self.sent + count + 1))
            if self._link.sock.send(data) != len(data):
                raise LoadBroken("the kernel did not take all lines")
            self.sent += count

    def read(self) -> None:
        self._link.receive()
        for opcode, payload in payloads(self._link.unread):
            acked = _ACKED.search(payload)
            if acked is not None:
                self.acked = int(acked[1])
            elif opcode == PING:
                self._link.sock.send(message(PONG, payload))
            elif opcode != TEXT or b'"error"' in payload or b'"nack"' in payload:
                raise LoadBroken(f"not what is said to log lines: {payload[:200]!r}")


def report(links: Sequence[Link], *, server: int, seconds: float = inf, each: int | None = None) -> dict[str, float]:
    """For `seconds`, or `each` so many, and then until everything is acknowledged; all of that counts."""
    nodes = {link.fd: ReportingNode(link, each) for link in links}
    poll = select.epoll()
    for fd in nodes:
        poll.register(fd, select.EPOLLIN)
    began, cpu, own_cpu = time.perf_counter(), cpu_seconds(server), time.process_time()
    for node in nodes.values():
        node.report()
    while any(node.acked < node.sent for node in nodes.values()):
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken("not every line was acknowledged")
        is_over = time.perf_counter() - began > seconds
        for fd, _ in events:
            nodes[fd].read()
            if not is_over:
                nodes[fd].report()
    took = time.perf_counter() - began
    acked = sum(node.acked for node in nodes.values())
    poll.close()
    return {
        "per_s": acked / took,
        "cpu_us": (cpu_seconds(server) - cpu) / acked * 1_000_000,
        "load_busy": (time.process_time() - own_cpu) / took,
    }
