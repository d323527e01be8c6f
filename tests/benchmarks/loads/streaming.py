"""Loads that are not round trips: snapshots published as fast as they are taken, and messages counted as they come."""

import select
import time
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.loads.asking import WARM_UP
from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import PATIENCE_S, Link, LoadBroken
from tests.benchmarks.loads.nodes import BURST, PublishingNode
from tests.benchmarks.wire import payloads

Readers = Mapping[int, Callable[[], None]]


def run(readers: Readers, count: Callable[[], int], *, seconds: float, server: int) -> dict[str, float]:
    """Calls each reader when its descriptor can be read, for `seconds`. Returns what `count` rose by per second after
    the warm-up, the CPU time that process `server` took for each, and how much of its core this process used.
    """
    poll = select.epoll()
    for fd in readers:
        poll.register(fd, select.EPOLLIN)
    _read_until(poll, readers, time.perf_counter() + WARM_UP * seconds)
    began, counted, cpu, own_cpu = time.perf_counter(), count(), cpu_seconds(server), time.process_time()
    _read_until(poll, readers, began + (1 - WARM_UP) * seconds)
    took = time.perf_counter() - began
    counted = count() - counted
    if not counted:
        raise LoadBroken(f"nothing came in {took:.1f} s")
    poll.close()
    return {
        "per_s": counted / took,
        "cpu_us": (cpu_seconds(server) - cpu) / counted * 1_000_000,
        "load_busy": (time.process_time() - own_cpu) / took,
    }


def _read_until(poll: select.epoll, readers: Readers, until: float) -> None:
    while (left := until - time.perf_counter()) > 0:
        for fd, _ in poll.poll(left):
            readers[fd]()


Publisher = tuple[Link, str]
"""A node's link, and which installation it is."""


def publish(
    publishers: Sequence[Publisher], *, in_arrays: bool, seconds: float, server: int
) -> tuple[dict[str, float], bytes]:
    """Every one is a node that publishes, for `seconds` and then until everything that was sent has been taken.
    Returns what `run` does, of all these snapshots and all this time; and how the time of the first node's last ends.
    """
    nodes = {link.fd: PublishingNode(link, install_id, in_arrays=in_arrays) for link, install_id in publishers}
    poll = select.epoll()
    for fd in nodes:
        poll.register(fd, select.EPOLLIN)
    began, cpu, own_cpu = time.perf_counter(), cpu_seconds(server), time.process_time()
    until = began + seconds
    for node in nodes.values():
        node.publish()
    while any(node.under_way for node in nodes.values()):
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken("not every burst was taken")
        is_over = time.perf_counter() > until
        for fd, _ in events:
            nodes[fd].read()
            if not is_over:
                nodes[fd].publish()
    took = time.perf_counter() - began
    taken = BURST * sum(node.bursts_taken for node in nodes.values())
    poll.close()
    figures = {
        "per_s": taken / took,
        "cpu_us": (cpu_seconds(server) - cpu) / taken * 1_000_000,
        "load_busy": (time.process_time() - own_cpu) / took,
    }
    first, _ = publishers[0]
    return figures, nodes[first.fd].last_observed


class Counted:
    """Messages that come on one link; nothing is answered."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.messages = 0

    def read(self) -> None:
        self._link.receive()
        self.messages += sum(1 for _ in payloads(self._link.unread))


def count(links: Sequence[Link], *, seconds: float, server: int) -> dict[str, float]:
    """What comes on these links."""
    counters = {link.fd: Counted(link) for link in links}
    readers = {fd: counter.read for fd, counter in counters.items()}
    return run(readers, lambda: sum(counter.messages for counter in counters.values()), seconds=seconds, server=server)
