"""Callers that send one command after the other, each until its end, and a node that carries them out in no time."""

import json
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any
from uuid import uuid4

import psycopg

from tests.benchmarks.loads.asking import WARM_UP, http_request, whole_answer
from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Link, LoadBroken
from tests.benchmarks.loads.nodes import telescope_uid, text
from tests.benchmarks.wire import PING, PONG, message, payloads

COMMAND = {"command_type": "benchmark.nothing", "note": "a type that no gateway knows is carried as it is"}
STEPS = ("accepted", "running", "completed")
OBSERVED_AT = "2026-11-22T06:00:00.123456Z"
WAIT_S = 30
OK_STATUS = b"HTTP/1.1 200"


@dataclass
class CommandedNode:
    """Says of each command in one write that it is accepted, runs and is completed, and writes down when it did:
    by command id, on `time.perf_counter`.
    """

    link: Link
    accepted_at: dict[str, float]
    seq: int = 0

    def read(self) -> None:
        self.link.receive()
        replies = b"".join(self._reply(*said) for said in payloads(self.link.unread))
        if replies:
            self.link.sock.sendall(replies)

    def _reply(self, opcode: int, payload: bytes) -> bytes:
        if opcode == PING:
            return message(PONG, payload)
        if b'"event_command"' not in payload:
            return b""
        command_id = json.loads(payload)["command_id"]
        self.accepted_at[command_id] = time.perf_counter()
        return b"".join(self._result(command_id, status) for status in STEPS)

    def _result(self, command_id: str, status: str) -> bytes:
        self.seq += 1
        frame = {"kind": "publish_command_result", "seq": self.seq, "command_id": command_id, "status": status}
        return text({**frame, "observed_at": OBSERVED_AT})


@dataclass
class Commander:
    """One caller on a connection of its own."""

    link: Link
    token: str
    target: str
    lease: str
    command_id: str = ""
    sent_at: float = 0.0

    def send(self) -> None:
        self.command_id = str(uuid4())
        body = {
            "telescopeUid": self.target,
            "commandId": self.command_id,
            "command": COMMAND,
            "leaseUid": self.lease,
            "waitS": WAIT_S,
        }
        self.sent_at = time.perf_counter()
        self.link.sock.send(http_request("POST", "/internal/commands", self.token, json.dumps(body).encode()))

    def read(self) -> bool:
        """Whether the answer is whole. Raises `LoadBroken` for one that is not an end."""
        self.link.receive()
        answer = whole_answer(self.link.unread)
        if answer is None:
            return False
        self.link.unread.clear()
        if not answer.startswith(OK_STATUS) or b'"outcome":"succeeded"' not in answer:
            raise LoadBroken(f"not the end of a command: {answer[:600]!r}")
        return True


def command(
    links: Sequence[Link],
    nodes: Mapping[str, Link],
    leases: Mapping[str, str],
    *,
    token: str,
    seconds: float,
    server: int,
) -> dict[str, float]:
    """Callers on `links`, in turn for the telescopes of `nodes` (by installation), under the leases of these. Returns
    commands that ended per second, how long a caller waited for the end and how long it was until the node said
    `accepted`, in milliseconds, and the CPU time of process `server` for each in microseconds.
    """
    accepted_at: dict[str, float] = {}
    carried = {link.fd: CommandedNode(link, accepted_at) for link in nodes.values()}
    installs = list(nodes)
    callers = {
        link.fd: Commander(link, token, telescope_uid(install_id), leases[install_id])
        for number, link in enumerate(links)
        for install_id in [installs[number % len(installs)]]
    }
    poll = select.epoll()
    for fd in (*carried, *callers):
        poll.register(fd, select.EPOLLIN)
    ended: list[float] = []
    accepted: list[float] = []
    total = 0
    cpu_began, server_began, began = time.process_time(), cpu_seconds(server), time.perf_counter()
    counted_from, until = began + WARM_UP * seconds, began + seconds
    for caller in callers.values():
        caller.send()
    asking = len(callers)
    while asking:
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken(f"{asking} commands have no answer")
        for fd, _ in events:
            if fd in carried:
                carried[fd].read()
                continue
            caller = callers[fd]
            if not caller.read():
                continue
            total += 1
            now = time.perf_counter()
            is_counted = caller.sent_at >= counted_from
            said_at = accepted_at.pop(caller.command_id)
            if is_counted:
                ended.append(now - caller.sent_at)
                accepted.append(said_at - caller.sent_at)
            if now < until or not is_counted:
                caller.send()
            else:
                asking -= 1
    over = time.perf_counter()
    poll.close()
    return {
        "per_s": len(ended) / (over - counted_from),
        **milliseconds("", ended),
        **milliseconds("accepted_", accepted),
        "cpu_us": (cpu_seconds(server) - server_began) / total * 1_000_000,
        "load_busy": (time.process_time() - cpu_began) / (over - began),
    }


def commits(url: str, *, connections: int, seconds: float) -> dict[str, float]:
    """What the same PostgreSQL takes of rows of that size, each in a transaction of its own, one at a time on each
    connection: no ledger that keeps one row of each command can be quicker.
    """
    row = json.dumps(COMMAND)
    opened = [psycopg.connect(url, autocommit=True) for _ in range(connections)]
    try:
        opened[0].execute("CREATE TABLE IF NOT EXISTS benchmark_commit (id uuid PRIMARY KEY, body text NOT NULL)")
        poll = select.epoll()
        by_fd: dict[int, Any] = {connection.fileno(): connection.pgconn for connection in opened}
        sent: dict[int, float] = {}
        taken: list[float] = []

        def send(fd: int) -> None:
            sent[fd] = time.perf_counter()
            values = [str(uuid4()).encode(), row.encode()]
            by_fd[fd].send_query_params(b"INSERT INTO benchmark_commit VALUES ($1::uuid, $2)", values)

        began = time.perf_counter()
        until = began + seconds
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
            send(fd)
        asking = len(by_fd)
        while asking:
            for fd, _ in poll.poll(PATIENCE_S):
                connection = by_fd[fd]
                connection.consume_input()
                if connection.is_busy():
                    continue
                while (result := connection.get_result()) is not None:
                    if result.error_message:
                        raise LoadBroken(result.error_message.decode())
                now = time.perf_counter()
                taken.append(now - sent[fd])
                if now < until:
                    send(fd)
                else:
                    asking -= 1
        over = time.perf_counter()
        poll.close()
        opened[0].execute("TRUNCATE benchmark_commit")
    finally:
        for connection in opened:
            connection.close()
    return {"per_s": len(taken) / (over - began), **milliseconds("", taken)}


def milliseconds(prefix: str, taken: list[float]) -> dict[str, float]:
    cuts = quantiles(taken, n=100) if len(taken) > 1 else taken * 99
    return {f"{prefix}p50_ms": cuts[49] * 1_000, f"{prefix}p99_ms": cuts[98] * 1_000}
