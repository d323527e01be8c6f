"""Opens sockets as a load generator does: a bounded number at once, each until it is of use."""

import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.benchmarks.wire import payloads

AT_ONCE = 16
PATIENCE_S = 30.0
RECEIVE_BYTES = 256 * 1024


class LoadBroken(Exception):
    """A server did not do what is measured: refused, closed, said something else, or nothing."""


@dataclass(slots=True)
class Link:
    """One non-blocking socket and what came on it that is not read yet."""

    sock: socket.socket
    unread: bytearray = field(default_factory=bytearray)

    @property
    def fd(self) -> int:
        return self.sock.fileno()

    def receive(self) -> None:
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise LoadBroken("the server closed a connection")
        self.unread += data


@dataclass(frozen=True, slots=True)
class Dial:
    """What is said on a new WebSocket, and how the first answer is known to be right."""

    upgrade: bytes
    first: bytes
    is_right: Callable[[bytes], bool]


def connect(port: int) -> Link:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return Link(sock)


def dial(port: int, dials: Iterable[Dial]) -> tuple[list[Link], float]:
    """Opens one WebSocket for each, `AT_ONCE` at a time, until each has had its first answer. Returns them in this
    order, and how long it took in seconds. Raises `LoadBroken`.
    """
    poll = select.epoll()
    under_way: dict[int, tuple[Link, int, Dial, bool]] = {}
    links: dict[int, Link] = {}
    waiting = iter(enumerate(dials))
    began = time.perf_counter()

    def start_next() -> None:
        for number, next_dial in waiting:
            link = connect(port)
            poll.register(link.fd, select.EPOLLIN)
            under_way[link.fd] = (link, number, next_dial, False)
            link.sock.send(next_dial.upgrade)
            return

    for _ in range(AT_ONCE):
        start_next()
    while under_way:
        events = poll.poll(PATIENCE_S)
        if not events:
            raise LoadBroken(f"{len(under_way)} sockets got no answer to their handshake")
        for fd, _ in events:
            link, number, its_dial, is_upgraded = under_way[fd]
            link.receive()
            if not is_upgraded:
                if not _upgraded(link):
                    continue
                under_way[fd] = (link, number, its_dial, True)
                link.sock.send(its_dial.first)
            first = next((payload for _, payload in payloads(link.unread)), None)
            if first is None:
                continue
            if not its_dial.is_right(first):
                raise LoadBroken(f"not the first answer that is measured: {first[:200]!r}")
            del under_way[fd]
            poll.unregister(fd)
            links[number] = link
            start_next()
    poll.close()
    return [links[number] for number in sorted(links)], time.perf_counter() - began


def _upgraded(link: Link) -> bool:
    end = link.unread.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not link.unread.startswith(b"HTTP/1.1 101"):
        raise LoadBroken(f"refused: {bytes(link.unread[:200])!r}")
    del link.unread[: end + 4]
    return True


def hang_up(links: Iterable[Link]) -> None:
    """Resets them, so that no port waits in TIME_WAIT."""
    for link in links:
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        link.sock.close()
