"""A TCP proxy that makes a bad line between whoever dials in and a gateway; what goes wrong is switched or planned."""

import struct
from collections.abc import Iterable
from functools import partial

import trio

from skygw.sim.fault_plan import Fault, plan
from skygw.sim.line import BOTH, Course, Line, Way
from skygw.sim.mishaps import Mishaps
from skygw.sim.pipe import End, Pipe
from skygw.sim.traffic import Counts, Traffic

SEND_BYTES = 64 * 1024
LEAST_RECEIVE_BYTES, MOST_RECEIVE_BYTES = 4 * 1024, 64 * 1024
RECEIVE_S = 0.03
"""Of each of our sockets' buffers: what waits should wait here, where it is counted. So little is received ahead as
still feeds the line, since a window far below loopback's segments of 64 KiB slows TCP down. The kernel doubles it.
"""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a RST (socket(7))."""


class FaultProxy:
    """One line. All connections through it share its rate; each meets its own mishaps, drawn from the seed, its
    number and the places in its bytes. The verbs take effect at once; they are for the Trio thread that runs it.
    """

    def __init__(self, host: str, port: int, *, line: Line | None = None, seed: object = "line") -> None:
        """`host` and `port` are where connections are forwarded to."""
        self.counts = Counts()
        self._host = host
        self._port = port
        self._line = line or Line()
        self._seed = seed
        self._traffic = {way: Traffic(self._line.course(way), self.counts) for way in BOTH}
        self._connections: set[_Connection] = set()

    # What can be switched while it runs. Without a way, both are meant.

    def hold(self, *ways: Way) -> None:
        """From now on nothing moves, on new connections neither; nothing is lost."""
        for traffic in self._of(ways):
            traffic.gate.shut()

    def release(self, *ways: Way) -> None:
        """Ends `hold` and `stall`: what was held goes on, in order, as fast as the line is."""
        for traffic in self._of(ways):
            traffic.gate.open()

    def stall(self, seconds: float, *ways: Way) -> None:
        """Holds for so long."""
        self.counts.stalls += 1
        for traffic in self._of(ways):
            traffic.gate.shut(seconds)

    def cut(self) -> None:
        """Closes every connection on both sides; what was on its way is lost."""
        for connection in tuple(self._connections):
            self.counts.cuts += 1
            connection.end()

    def reset(self) -> None:
        """As `cut`, and both sides get a RST."""
        for connection in tuple(self._connections):
            self.counts.resets += 1
            connection.end(reset=True)

    def half_open(self, *ways: Way) -> None:
        """What is sent on the connections there are now vanishes, their ends too; they stay, and new ones are whole."""
        for connection in self._connections:
            self.counts.half_opens += 1
            connection.vanish(ways or BOTH)

    def read_slowly(self, bytes_per_s: float, *ways: Way) -> None:
        """So much is taken from each connection's sender, as by a slow reader; infinite ends it."""
        for traffic in self._of(ways):
            traffic.read_bytes_per_s = bytes_per_s

    def flip_at(self, place: int, way: Way) -> None:
        """Changes one bit of the byte at `place` of the stream, once: on the first connection that comes so far."""
        self._traffic[way].flip_at.add(place)

    @property
    def held(self) -> int:
        """Bytes on their way now, all connections together."""
        return sum(pipe.held for connection in self._connections for pipe in connection.pipes.values())

    def _of(self, ways: Iterable[Way]) -> Iterable[Traffic]:
        return [self._traffic[way] for way in ways or BOTH]

    # The line itself.

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens on a free loopback port, which is what it is started with; until cancelled. Then all ends are cut."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_plan)
            await self.carry_to(self._host, self._port, task_status=task_status)

    async def carry_to(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As `run`, beside it: what else a site sends to others, on the same line."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        for listener in listeners:
            _keep_small(listener.socket, self._line.up)
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(partial(self._forward, host, port), listeners)

    async def _follow_plan(self) -> None:
        began = trio.current_time()
        for planned in plan(self._line.troubles, self._seed):
            await trio.sleep_until(began + planned.at_s)
            match planned.fault:
                case Fault.STALL:
                    self.stall(planned.for_s)
                case Fault.CUT:
                    self.cut()
                case Fault.RESET:
                    self.reset()
                case Fault.HALF_OPEN:
                    self.half_open()

    async def _forward(self, host: str, port: int, site: trio.SocketStream) -> None:
        self.counts.connections += 1
        number = self.counts.connections
        try:
            gateway = await _dial(host, port, self._line.down)
        except OSError:
            site.socket.close()
            return
        connection = _Connection(site, gateway, self._line, self._traffic, (self._seed, number))
        self._connections.add(connection)
        for traffic in self._traffic.values():
            traffic.connections += 1
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            for traffic in self._traffic.values():
                traffic.connections -= 1


class _Connection:
    """Both directions of one connection."""

    def __init__(
        self,
        site: trio.SocketStream,
        gateway: trio.SocketStream,
        line: Line,
        traffic: dict[Way, Traffic],
        seed: tuple[object, ...],
    ) -> None:
        self._site = site
        self._gateway = gateway
        self._line = line
        self._both = trio.CancelScope()
        self._reset = False
        self.pipes = {
            way: Pipe(
                source,
                target,
                line=line,
                way=way,
                traffic=traffic[way],
                mishaps=Mishaps(line.course(way), *seed, way),
            )
            for way, source, target in ((Way.UP, site, gateway), (Way.DOWN, gateway, site))
        }

    def end(self, *, reset: bool = False) -> None:
        """Soon; both sides at once."""
        self._reset |= reset
        self._both.cancel()

    def vanish(self, ways: Iterable[Way]) -> None:
        for way in ways:
            self.pipes[way].vanish()

    async def run(self) -> None:
        try:
            with self._both:
                # TCP's own handshake was with us, at once: over the line it takes a round trip.
                await trio.sleep(self._line.round_trip_s)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, Way.UP, self._gateway)
                    nursery.start_soon(self._carry, Way.DOWN, self._site)
        finally:
            for stream in (self._site, self._gateway):
                if self._reset:
                    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, _RESET_ON_CLOSE)
                stream.socket.close()

    async def _carry(self, way: Way, target: trio.SocketStream) -> None:
        pipe = self.pipes[way]
        end = await pipe.run()
        if end is End.FINISHED:
            try:
                await target.send_eof()
            except trio.BrokenResourceError:
                end = End.RECEIVER_GONE
        if end is End.RECEIVER_GONE:
            await self._tell_back(way)
        elif end is End.SENDER_GONE:
            self.end(reset=True)

    async def _tell_back(self, way: Way) -> None:
        """That its bytes find nobody any more reaches the sender the other way round, if anything does."""
        back = Way.DOWN if way is Way.UP else Way.UP
        await trio.sleep(self._line.course(back).latency_s)
        if self.pipes[back].vanishing:
            await self.pipes[way].swallow()
        else:
            self.end(reset=True)


async def _dial(host: str, port: int, receives: Course) -> trio.SocketStream:
    """Connects with small buffers, which must be asked for before. Raises `OSError`."""
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM):
        socket = trio.socket.socket(family, kind, protocol)
        try:
            _keep_small(socket, receives)
            await socket.connect(address)
        except OSError as error:
            socket.close()
            problem = error
        except BaseException:
            socket.close()
            raise
        else:
            return trio.SocketStream(socket)
    raise problem


def _keep_small(socket: trio.socket.SocketType, receives: Course) -> None:
    received = int(min(max(LEAST_RECEIVE_BYTES, receives.bytes_per_s * RECEIVE_S), MOST_RECEIVE_BYTES))
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, received)
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BYTES)
