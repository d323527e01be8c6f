"""Asks for a hardware graph over HTTP, and for its rows by SQL, one after the other."""

import time
from contextlib import closing
from statistics import quantiles
from typing import Any

import psycopg

from tests.benchmarks.loads.asking import WARM_UP, ask, learn
from tests.benchmarks.loads.dialing import connect, hang_up


def graph(job: dict[str, Any]) -> dict[str, float]:
    """One node that asks again as soon as it is answered. `held` is the entity tag it has."""
    held = f"if-none-match: {job['held']}\r\n" if "held" in job else ""
    request = (
        f"GET {job['path']} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {job['token']}\r\n{held}\r\n"
    ).encode()
    link = connect(job["port"])
    try:
        answer = learn(link, request)
        return ask([link], request, answer=answer, seconds=job["seconds"], server=job["server"])
    finally:
        hang_up([link])


def select(job: dict[str, Any]) -> dict[str, float]:
    """The CPU time is that of this process: what a program spends that reads the rows by itself."""
    taken: list[float] = []
    with closing(psycopg.connect(job["url"], autocommit=True)) as connection:
        began = time.perf_counter()
        counted_from, until = began + WARM_UP * job["seconds"], began + job["seconds"]
        cpu_began = time.process_time()
        queries = 0
        while not taken or time.perf_counter() < until:
            sent = time.perf_counter()
            connection.execute(job["query"].encode(), job["values"]).fetchall()
            queries += 1
            if sent >= counted_from:
                taken.append(time.perf_counter() - sent)
        cpu_s = time.process_time() - cpu_began
    cuts = quantiles(taken, n=100, method="inclusive") if len(taken) > 1 else taken * 99
    return {
        "per_s": len(taken) / sum(taken),
        "p50_ms": cuts[49] * 1_000,
        "p99_ms": cuts[98] * 1_000,
        "cpu_us": cpu_s / queries * 1_000_000,
    }
