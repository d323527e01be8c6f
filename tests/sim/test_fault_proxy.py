"""A line between two sockets, and what becomes of them when it is held, cut, reset, half open or flooded."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf

import pytest
import trio
import trio.testing
import trustme

from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.line import Course, Line, Troubles, Way

PATIENCE_S = 15.0
SILENCE_S = 0.1
"""Long enough for what would arrive to arrive."""


@dataclass
class Rig:
    """A line, and what came out at its other end."""

    proxy: FaultProxy
    port: int
    accepted: trio.MemoryReceiveChannel[trio.SocketStream]
    sites: list[trio.SocketStream]

    async def connect(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """The two ends of one connection: the site's and the gateway's."""
        site = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.sites.append(site)
        return site, await self.accepted.receive()


@asynccontextmanager
async def rig(line: Line | None = None, seed: str = "seed") -> AsyncIterator[Rig]:
    accepting, accepted = trio.open_memory_channel[trio.SocketStream](inf)
    sites: list[trio.SocketStream] = []

    async def accept(stream: trio.SocketStream) -> None:
        accepting.send_nowait(stream)
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, accept, listeners)
            proxy = FaultProxy("127.0.0.1", listeners[0].socket.getsockname()[1], line=line, seed=seed)
            port: int = await nursery.start(proxy.run)
            try:
                yield Rig(proxy, port, accepted, sites)
            finally:
                for site in sites:
                    site.socket.close()
            nursery.cancel_scope.cancel()


async def received(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (piece := await stream.receive_some(count - len(data))):
        data += piece
    return bytes(data)


async def is_silent(stream: trio.SocketStream) -> bool:
    """Whether neither bytes nor an end come for a moment."""
    with trio.move_on_after(SILENCE_S) as silence:
        await stream.receive_some(1)
    return silence.cancelled_caught


async def how_it_ends(stream: trio.SocketStream) -> str:
    try:
        return "closed" if await stream.receive_some(1) == b"" else "goes on"
    except trio.BrokenResourceError as broken:
        return type(broken.__cause__).__name__


async def test_bytes_and_ends_pass_both_ways_and_are_counted() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        await site.send_all(b"up")
        assert await received(gateway, 2) == b"up"
        await site.send_eof()
        assert await how_it_ends(gateway) == "closed"
        await gateway.send_all(b"down")
        await gateway.send_eof()
        assert await received(site, 5) == b"down"
        counts = line.proxy.counts
        assert (counts.connections, counts.bytes_up, counts.bytes_down) == (1, 2, 4)


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    unused = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = unused.socket.getsockname()[1]
    await unused.aclose()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            proxied = await nursery.start(FaultProxy("127.0.0.1", port).run)
            async with await trio.open_tcp_stream("127.0.0.1", proxied) as stream:
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()


async def test_what_is_held_arrives_after_the_release_and_the_other_way_flows_on() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        line.proxy.hold(Way.DOWN)
        await gateway.send_all(b"held")
        await site.send_all(b"up")
        assert await received(gateway, 2) == b"up"
        assert await is_silent(site)
        line.proxy.release()
        assert await received(site, 4) == b"held"


async def test_a_stall_holds_new_connections_too_and_passes() -> None:
    async with rig() as line:
        began = trio.current_time()
        line.proxy.stall(0.3)
        site, gateway = await line.connect()
        await site.send_all(b"x")
        assert await received(gateway, 1) == b"x"
        assert trio.current_time() - began >= 0.3
        assert line.proxy.counts.stalls == 1


async def test_a_cut_closes_both_sides_of_every_connection_and_new_ones_are_taken() -> None:
    async with rig() as line:
        ends = [*await line.connect(), *await line.connect()]
        line.proxy.cut()
        assert [await how_it_ends(end) for end in ends] == ["closed"] * 4
        site, gateway = await line.connect()
        await site.send_all(b"again")
        assert await received(gateway, 5) == b"again"
        assert line.proxy.counts.cuts == 2


async def test_a_reset_is_a_reset_on_both_sides() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        line.proxy.reset()
        assert [await how_it_ends(site), await how_it_ends(gateway)] == ["ConnectionResetError"] * 2
        assert line.proxy.counts.resets == 1


async def test_on_a_half_open_connection_bytes_vanish_both_ways_and_nobody_is_told() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        line.proxy.half_open()
        await site.send_all(b"up")
        await gateway.send_all(b"down")
        assert await is_silent(site)
        assert await is_silent(gateway)
        await site.aclose()
        assert await is_silent(gateway)
        other, other_gateway = await line.connect()
        await other.send_all(b"whole")
        assert await received(other_gateway, 5) == b"whole"
        assert line.proxy.counts.half_opens == 1


async def test_a_connection_can_be_half_open_one_way_only() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        line.proxy.half_open(Way.UP)
        await site.send_all(b"up")
        await gateway.send_all(b"down")
        assert await received(site, 4) == b"down"
        assert await is_silent(gateway)
        await site.aclose()
        await gateway.send_all(bytes(100_000))  # to a site that is gone, and cannot say so
        assert await is_silent(gateway)


async def test_a_peer_that_resets_is_noticed_on_the_other_side() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        await site.send_all(b"last words")
        await trio.testing.wait_all_tasks_blocked(0.05)
        site.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        site.socket.close()
        assert await received(gateway, 10) == b"last words"
        assert await how_it_ends(gateway) == "ConnectionResetError"


async def test_who_sends_to_a_peer_that_is_gone_is_told() -> None:
    async with rig() as line:
        site, gateway = await line.connect()
        await site.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await gateway.send_all(bytes(50_000_000))  # more than any buffer takes


async def test_a_sender_is_held_back_by_the_line_and_what_it_holds_is_bounded() -> None:
    async with rig(Line(up=Course(bits_per_s=80_000, latency_s=0.1))) as line:
        site, _ = await line.connect()
        site.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4_096)
        sent = 0
        with trio.move_on_after(1.0):
            while True:
                sent += await site.socket.send(bytes(1_000))
        assert sent < 60_000  # a second at 10,000 a second; queue, flight and kernels hold the rest
        assert 0 < line.proxy.held < 10_000


async def test_the_line_carries_tls_and_a_changed_byte_breaks_it() -> None:
    authority = trustme.CA()
    server, client = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with rig(Line(up=Course(latency_s=0.01))) as line:
        site, gateway = await line.connect()
        tls_site = trio.SSLStream(site, client, server_hostname="localhost")
        tls_gateway = trio.SSLStream(gateway, server, server_side=True)
        async with trio.open_nursery() as shaking:
            shaking.start_soon(tls_site.do_handshake)
            shaking.start_soon(tls_gateway.do_handshake)
        await tls_site.send_all(b"secret")
        assert await received(tls_gateway, 6) == b"secret"
        await trio.testing.wait_all_tasks_blocked()
        line.proxy.flip_at(line.proxy.counts.bytes_up + 10, Way.UP)
        await tls_site.send_all(b"secret")
        with pytest.raises(trio.BrokenResourceError):
            await tls_gateway.receive_some()
        assert line.proxy.counts.flips == 1


async def test_the_same_seed_changes_the_same_bytes_of_the_same_connection() -> None:
    async def changed(seed: str) -> list[int]:
        async with rig(Line(up=Course(flip=0.001)), seed) as line:
            site, gateway = await line.connect()
            await site.send_all(bytes(10_000))
            arrived = await received(gateway, 10_000)
            return [place for place, byte in enumerate(arrived) if byte]

    first = await changed("a")
    assert first
    assert await changed("a") == first
    assert await changed("b") != first


async def test_a_planned_line_has_its_troubles_by_itself() -> None:
    troubles = Troubles(stall_every_s=0.05, stall_s=0.01, cut_every_s=0.1, reset_every_s=0.1, half_open_every_s=0.1)
    async with rig(Line(troubles=troubles)) as line:
        counts = line.proxy.counts
        while not (counts.stalls and counts.cuts and counts.resets and counts.half_opens):
            await line.connect()
            await trio.sleep(0.01)
        assert counts.connections > 1
