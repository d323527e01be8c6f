"""Nodes that claim one task after the other, and how quickly the same rows can be taken at all."""

import json
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg

from tests.benchmarks.loads.asking import WARM_UP, http_request, whole_answer
from tests.benchmarks.loads.commanding import milliseconds
from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Link, LoadBroken

OK_STATUS = b"HTTP/1.1 200"

INSERT_INSTRUMENT = """
    INSERT INTO instrument (uid, name, instrument_type, telescope_id)
    SELECT %s, 'imager', 'optical_imager', id FROM telescope WHERE uid = %s
"""
INSERT_TASKS = """
    INSERT INTO observation_task (uid, task_type, status, instrument_id)
    SELECT gen_random_uuid(), 'optical_imaging', 'pending', instrument.id
    FROM instrument, generate_series(1, %s)
    WHERE instrument.uid = ANY (%s)
"""
TAKE = b"""
    UPDATE observation_task SET status = 'active'
    WHERE id = (
        SELECT id FROM observation_task WHERE instrument_id = $1 AND status = 'pending'
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""
"""What a queue in PostgreSQL is made of, and no more: nobody is asked whether it may, nothing is written down of it."""


def make_tasks(url: str, telescopes: Sequence[str], each: int) -> list[UUID]:
    """An instrument for each of these telescopes with so many pending tasks."""
    instruments = [uuid4() for _ in telescopes]
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT_INSTRUMENT, list(zip(instruments, telescopes, strict=True)))
        cursor.execute(INSERT_TASKS, [each, instruments])
        cursor.execute("ANALYZE observation_task")
    return instruments


@dataclass
class Claimer:
    """One node on a connection of its own."""

    link: Link
    token: str
    sent_at: float = 0.0

    def send(self) -> None:
        body = json.dumps({"claimUid": str(uuid4())}).encode()
        self.sent_at = time.perf_counter()
        self.link.sock.send(http_request("POST", "/v1/nodes/me/tasks/claim", self.token, body))

    def read(self) -> bool:
        """Whether the answer is whole. Raises `LoadBroken` for one without a task."""
        self.link.receive()
        answer = whole_answer(self.link.unread)
        if answer is None:
            return False
        self.link.unread.clear()
        if not answer.startswith(OK_STATUS) or b'"claimExpiresAt":"' not in answer:
            raise LoadBroken(f"not a task: {answer[:600]!r}")
        return True


def claim(links: Sequence[Link], tokens: Sequence[str], *, seconds: float, server: int) -> dict[str, float]:
    """Tasks claimed per second, one at a time on each link, how long each took in milliseconds, and the CPU time of
    process `server` for each in microseconds.
    """
    claimers = {link.fd: Claimer(link, token) for link, token in zip(links, tokens, strict=True)}
    cpu_began, server_began, began = time.process_time(), cpu_seconds(server), time.perf_counter()
    counted_from, until = began + WARM_UP * seconds, began + seconds
    poll = select.epoll()
    for fd, claimer in claimers.items():
        poll.register(fd, select.EPOLLIN)
        claimer.send()
    taken: list[float] = []
    total, asking = 0, len(claimers)
    while asking:
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken(f"{asking} claims have no answer")
        for fd, _ in events:
            claimer = claimers[fd]
            if not claimer.read():
                continue
            total += 1
            now = time.perf_counter()
            is_counted = claimer.sent_at >= counted_from
            if is_counted:
                taken.append(now - claimer.sent_at)
            if now < until or not is_counted:
                claimer.send()
            else:
                asking -= 1
    over = time.perf_counter()
    poll.close()
    return {
        "per_s": len(taken) / (over - counted_from),
        **milliseconds("", taken),
        "cpu_us": (cpu_seconds(server) - server_began) / total * 1_000_000,
        "load_busy": (time.process_time() - cpu_began) / (over - began),
    }


def take_rows(url: str, instruments: Sequence[UUID], *, seconds: float) -> dict[str, float]:
    """The same number of connections, each taking the rows of its instrument with one statement."""
    opened = [psycopg.connect(url, autocommit=True) for _ in instruments]
    try:
        rows = opened[0].execute("SELECT id FROM instrument WHERE uid = ANY (%s)", [list(instruments)]).fetchall()
        keys = {connection.fileno(): str(key) for connection, (key,) in zip(opened, rows, strict=True)}
        by_fd: dict[int, Any] = {connection.fileno(): connection.pgconn for connection in opened}
        poll = select.epoll()
        sent: dict[int, float] = {}
        taken: list[float] = []

        def send(fd: int) -> None:
            sent[fd] = time.perf_counter()
            by_fd[fd].send_query_params(TAKE, [keys[fd].encode()])

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
                found = 0
                while (result := connection.get_result()) is not None:
                    if result.error_message:
                        raise LoadBroken(result.error_message.decode())
                    found += result.ntuples
                if found != 1:
                    raise LoadBroken("there were no tasks left to take")
                now = time.perf_counter()
                taken.append(now - sent[fd])
                if now < until:
                    send(fd)
                else:
                    asking -= 1
        over = time.perf_counter()
        poll.close()
    finally:
        for connection in opened:
            connection.close()
    return {"per_s": len(taken) / (over - began), **milliseconds("", taken)}
