"""Nobody takes all places of a listener: not one address, not one client behind a proxy, not those who only rest."""

import json
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import pytest
import trio
import trio.testing

from skygw.auth.networks import client_address
from skygw.serving import End, ListenerConfig, Refusal
from skygw.serving.places import SLOW_AT_ONCE, Places
from tests.serving.apps import UPGRADE, EchoApp
from tests.serving.served import PATIENCE_S, Peer, Served, serving

LOOPBACK = (ip_network("127.0.0.0/8"),)


def resolve(peer: str, forwarded_for: Any) -> str | None:
    found = client_address(peer, forwarded_for, LOOPBACK)
    return None if found is None else str(found)


BEHIND_A_PROXY = {"trusted_proxies": LOOPBACK, "resolve_client": resolve, "max_connections_per_address": 1}


def request(path: str = "/", *, forwarded_for: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n".encode()


def upgrade(*, forwarded_for: str) -> bytes:
    return UPGRADE + f"X-Forwarded-For: {forwarded_for}\r\n\r\n".encode()


async def told(peer: Peer, sent: bytes) -> tuple[int, bytes]:
    """Status and head of the answer."""
    await peer.send(sent)
    head = await peer.read_until(b"\r\n\r\n")
    return int(head.split()[1]), head.lower()


async def test_over_the_cap_a_connection_is_closed_unread_and_counted() -> None:
    app = EchoApp()
    async with serving(app, max_connections=1) as served, served.peer() as first:
        await first.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await app.until_called(1)
        async with served.peer() as second:
            assert await second.read_to_end() == b""
        assert served.metrics.refused_by == {Refusal.TOO_MANY: 1}


async def test_who_has_rested_longest_gives_way_to_who_comes() -> None:
    async with serving(EchoApp(), max_connections=2) as served, served.peer() as first, served.peer() as second:
        assert await second.ask() == (200, b"hello")
        assert await first.ask() == (200, b"hello")
        await trio.testing.wait_all_tasks_blocked()
        async with served.peer() as third:
            assert await third.ask() == (200, b"hello")
            assert await second.read_to_end() == b""
            assert await first.ask() == (200, b"hello")
        assert served.metrics.closed_by[End.GAVE_WAY] == 1
        assert served.metrics.refused_by == {}


@pytest.mark.parametrize("cap", ["max_connections", "max_connections_per_address"])
async def test_those_who_have_asked_nothing_keep_nobody_out(cap: str) -> None:
    """Else a thousand silent connections would hold a stop up for as long as a head may take."""
    async with serving(EchoApp(), **{cap: 3}) as served, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(served.peer()) for _ in range(3)]
        await served.metrics.until_opened(3)
        await trio.testing.wait_all_tasks_blocked()
        async with served.peer() as asking:
            assert await asking.ask() == (200, b"hello")
        assert await silent[0].read_to_end() == b""
        assert served.metrics.closed_by[End.GAVE_WAY] == 1
        assert served.metrics.refused_by == {}


async def test_who_has_begun_to_ask_does_not_give_way() -> None:
    async with serving(EchoApp(), max_connections=1) as served, served.peer() as first:
        assert await first.ask() == (200, b"hello")
        await first.send(b"GET / HTTP/1.1\r\n")
        await trio.testing.wait_all_tasks_blocked(0.02)
        async with served.peer() as second:
            assert await second.read_to_end() == b""
        await first.send(b"Host: a\r\n\r\n")
        assert await first.response() == (200, b"hello")


async def test_one_address_cannot_take_all_connections() -> None:
    async with serving(EchoApp(), max_connections_per_address=1) as served:
        async with served.peer() as first:
            await first.send(b"GET / HTTP/1.1\r\n")
            await trio.testing.wait_all_tasks_blocked(0.02)
            async with served.peer() as second:
                assert await second.read_to_end() == b""
            assert served.metrics.refused_by == {Refusal.TOO_MANY_FROM_ADDRESS: 1}
        await served.metrics.until_closed(End.PEER_LEFT)
        async with served.peer() as third:
            assert await third.ask() == (200, b"hello")


async def test_a_proxy_that_nobody_named_is_not_capped_by_its_address() -> None:
    settings = {"max_connections_per_address": 1, "behind_tls_proxy": True}
    async with serving(EchoApp(), **settings) as served, served.peer() as first, served.peer() as second:
        assert await first.ask() == (200, b"hello")
        assert await second.ask() == (200, b"hello")


async def test_a_client_behind_a_proxy_is_capped_by_its_own_address() -> None:
    app = EchoApp()
    async with serving(app, **BEHIND_A_PROXY) as served, served.peer() as first, served.peer() as second:
        await first.send(request("/hang", forwarded_for="198.51.100.7"))
        await app.until_called(1)
        status, head = await told(second, request(forwarded_for="203.0.113.9, 198.51.100.7"))
        problem = json.loads(await second.read_to_end())
        assert (status, problem["code"], problem["retry"]) == (429, "rate_limited", "after")
        assert b"\r\nretry-after: 5\r\n" in head
        assert served.metrics.refused_by == {Refusal.TOO_MANY_FROM_ADDRESS: 1}
        async with served.peer() as third:
            await third.send(request(forwarded_for="198.51.100.7, 203.0.113.9"))
            assert await third.response() == (200, b"hello")


async def test_a_websocket_over_the_cap_is_refused_before_its_handshake() -> None:
    async with serving(EchoApp(), **BEHIND_A_PROXY) as served, served.peer() as first, served.peer() as second:
        assert (await told(first, upgrade(forwarded_for="198.51.100.7")))[0] == 101
        status, head = await told(second, upgrade(forwarded_for="198.51.100.7"))
        assert status == 503
        assert b"\r\nretry-after: 5\r\n" in head


async def test_a_proxys_connection_serves_many_clients_one_after_another() -> None:
    async with serving(EchoApp(), **BEHIND_A_PROXY) as served, served.peer() as proxy, served.peer() as other:
        for client in ("198.51.100.7", "203.0.113.9", "198.51.100.7"):
            await proxy.send(request(forwarded_for=client))
            assert await proxy.response() == (200, b"hello")
        await other.send(request(forwarded_for="198.51.100.7"))
        assert await other.response() == (200, b"hello")


async def leave_and_come_back(served: Served, app: EchoApp, sent: bytes) -> int:
    """The status that a client gets whose last connection has ended in the middle of something."""
    async with served.peer() as first:
        await first.send(sent)
        await app.until_called(1)
    with trio.fail_after(PATIENCE_S):
        while served.listener.connection_count:
            await trio.testing.wait_all_tasks_blocked(0.01)
    async with served.peer() as second:
        await second.send(request(forwarded_for="198.51.100.7"))
        return (await second.response())[0]


async def test_a_place_is_free_again_when_its_request_is_cut() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nX-Forwarded-For: 198.51.100.7\r\n\r\nhalf"
    app = EchoApp()
    async with serving(app, **BEHIND_A_PROXY) as served:
        assert await leave_and_come_back(served, app, post) == 200


async def test_a_place_is_free_again_when_its_websocket_is_cut() -> None:
    app = EchoApp()
    async with serving(app, **BEHIND_A_PROXY) as served:
        assert await leave_and_come_back(served, app, upgrade(forwarded_for="198.51.100.7")) == 200


async def test_what_may_be_a_stop_is_never_refused() -> None:
    app = EchoApp()
    settings = {**BEHIND_A_PROXY, "never_refused": lambda path: path == "/stop"}
    async with serving(app, **settings) as served, served.peer() as first, served.peer() as second:
        await first.send(request("/hang", forwarded_for="198.51.100.7"))
        await app.until_called(1)
        await second.send(request("/stop?now=1", forwarded_for="198.51.100.7"))
        assert await second.response() == (200, b"hello")


async def test_what_a_stranger_says_of_its_address_does_not_count() -> None:
    settings = {**BEHIND_A_PROXY, "trusted_proxies": (ip_network("192.0.2.0/24"),)}
    app = EchoApp()
    async with serving(app, **settings) as served, served.peer() as first:
        await first.send(request("/hang", forwarded_for="198.51.100.7"))
        await app.until_called(1)
        async with served.peer() as second:
            assert await second.read_to_end() == b""
        assert served.metrics.refused_by == {Refusal.TOO_MANY_FROM_ADDRESS: 1}


async def test_a_client_whose_address_is_none_is_one_client_like_others() -> None:
    app = EchoApp()
    async with serving(app, **BEHIND_A_PROXY) as served, served.peer() as first, served.peer() as second:
        await first.send(request("/hang", forwarded_for="nobody"))
        await app.until_called(1)
        assert (await told(second, request(forwarded_for="somebody")))[0] == 429


async def test_who_comes_in_pieces_is_taken_a_few_at_a_time() -> None:
    config = ListenerConfig(name="node", host="127.0.0.1", port=0)
    places = Places(config, refused=lambda _why, _client: None)
    done: list[int] = []

    async def one_of_many(number: int) -> None:
        await places.turn()
        done.append(number)

    in_each_round: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(10 * SLOW_AT_ONCE):
            nursery.start_soon(one_of_many, number)
        while len(done) < 10 * SLOW_AT_ONCE:
            before = len(done)
            await trio.lowlevel.checkpoint()
            in_each_round.append(len(done) - before)
    assert max(in_each_round) <= SLOW_AT_ONCE
