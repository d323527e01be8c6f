"""Many peers at once, each of which does one odd thing after another, while the listener is running and when it ends.

`SKYGW_TEST_FUZZ_ROUNDS` and `SKYGW_TEST_FUZZ_SEED` make it longer, and another one.
"""

import os
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import quart
import trio
import trustme
from quart_trio import QuartTrio

from skygw.routers.quart_socket import use_direct_sockets
from skygw.serving import EXTENSION, End, TlsFiles
from skygw.websocket import LinkClosed
from tests.hazards.peers import Op, frame, goodbye, upgrade, vanish
from tests.serving.served import PATIENCE_S, Peer, Served, serving

ROUNDS = int(os.environ.get("SKYGW_TEST_FUZZ_ROUNDS", "40"))
SEED = int(os.environ.get("SKYGW_TEST_FUZZ_SEED", "1"))
AT_ONCE = 12
STEPS = 8
SOON = 50
IMPATIENT = {
    "header_timeout_s": 0.4,
    "body_idle_timeout_s": 0.4,
    "keep_alive_timeout_s": 0.4,
    "send_timeout_s": 0.4,
    "websocket_ping_after_s": 0.3,
    "websocket_gone_after_s": 0.9,
    "websocket_max_message_bytes": 64 * 1024,
}
WHOLE = (
    b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET /flood HTTP/1.1\r\nHost: here\r\n\r\n",
    b"GET /ponder HTTP/1.1\r\nHost: here\r\n\r\n",
    *(upgrade(f"/ws/{name}") for name in ("echo", "flood", "spout", "ponder", "impatient", "deny", "leave", "nowhere")),
    frame(Op.TEXT, b"hello"),
    frame(Op.BINARY, bytes(40_000)),
    frame(Op.TEXT, b"hel", is_last=False),
    frame(Op.CONTINUATION, b"lo"),
    frame(Op.PING, b"?") * 30,
    frame(Op.PONG),
    goodbye(1000, "enough"),
    goodbye(1005),
    frame(Op.BINARY, bytes(70_000)),
    b"\x00\x01garbage\r\n\r\n",
)


def odd_app() -> Any:
    """Handlers that behave in every way a handler may, the impolite ones too."""
    app = QuartTrio("odd", static_folder=None)
    use_direct_sockets(app)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.post("/echo")
    async def echo_body() -> quart.Response:
        return quart.Response(await quart.request.get_data(as_text=False))

    @app.get("/flood")
    async def flood() -> quart.Response:
        async def pieces() -> Any:
            while True:
                yield bytes(16_384)

        return quart.Response(pieces())

    @app.get("/ponder")
    async def ponder() -> str:
        await trio.sleep(1.0)
        return "well"

    def link() -> Any:
        scope: Any = quart.websocket.scope
        found = scope["extensions"][EXTENSION].websocket
        if found is None:
            raise LinkClosed(None)
        return found

    def add(name: str, talk: Callable[[Any], Awaitable[None]]) -> None:
        async def handler() -> None:
            await quart.websocket.accept()
            with suppress(LinkClosed):
                await talk(link())

        app.add_websocket(f"/ws/{name}", f"talk_{name}", handler)

    async def echo(talk: Any) -> None:
        while True:
            await talk.send(await talk.receive())

    async def flood_messages(talk: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                with suppress(LinkClosed):
                    while True:
                        await talk.receive()

            nursery.start_soon(hear)
            with suppress(LinkClosed):
                while True:
                    await talk.send((bytes(8_192), "text"))

    async def spout(talk: Any) -> None:
        while True:
            await talk.send((bytes(8_192),))

    async def ponder_first(talk: Any) -> None:
        await trio.sleep(0.7)
        await echo(talk)

    async def impatient(talk: Any) -> None:
        for _ in range(20):
            with trio.move_on_after(0.02):
                await talk.send((bytes(100_000),))
            with trio.move_on_after(0.02):
                await talk.receive()
        await talk.close(4000, "enough of this")

    async def leave(talk: Any) -> None:
        talk.abort()

    add("echo", echo)
    add("flood", flood_messages)
    add("spout", spout)
    add("ponder", ponder_first)
    add("impatient", impatient)
    add("leave", leave)

    @app.websocket("/ws/deny")
    async def deny() -> quart.Response:
        return quart.Response("no", 401)

    return app


async def misbehave(served: Served, chance: random.Random, tls: ssl.SSLContext | None) -> None:
    """One peer, from its connect to whatever end it comes to."""
    async with served.peer(tls=tls, receive_buffer=chance.choice((None, 4096))) as peer:
        with trio.move_on_after(2.0), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(chance.randrange(1, STEPS)):
                await step(peer, chance)


async def step(peer: Peer, chance: random.Random) -> None:
    match chance.randrange(9):
        case 0 | 1 | 2:
            await peer.stream.send_all(chance.choice(WHOLE))
        case 3:
            whole = chance.choice(WHOLE)
            await peer.stream.send_all(whole[: chance.randrange(len(whole))])
        case 4:
            await peer.stream.send_all(chance.choice(WHOLE) + chance.choice(WHOLE))
        case 5:
            with trio.move_on_after(chance.random() / 10):
                await peer.stream.receive_some(chance.choice((1, 100, 65_536)))
        case 6:
            await trio.sleep(chance.random() / 10)  # its pause
        case 7:
            if chance.random() < 0.3:
                await peer.transport.send_eof()
        case _:
            if chance.random() < 0.1:
                vanish(peer.transport)


async def storm(served: Served, chance: random.Random, tls: ssl.SSLContext | None, rounds: int) -> None:
    async def one_after_another(mine: random.Random) -> None:
        with suppress(ConnectionError):  # nobody listens any more
            for _ in range(rounds):
                await misbehave(served, mine, tls if mine.random() < 0.8 else None)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_another, random.Random(chance.random()))  # noqa: S311 - repeatable


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls_of(authority: trustme.CA, folder: Path) -> tuple[TlsFiles, ssl.SSLContext]:
    leaf = authority.issue_cert("localhost")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return TlsFiles(certificate=certificate, key=key), client


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("over", ["clear", "tls"])
async def test_whatever_many_peers_do_at_once_no_fault_is_ours_and_nothing_is_left_open(
    over: str, authority: trustme.CA, tmp_path: Path
) -> None:
    files, client = tls_of(authority, tmp_path) if over == "tls" else (None, None)
    chance = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    async with serving(odd_app(), tls=files, **IMPATIENT) as served:
        before = open_files()
        await storm(served, chance, client, max(1, ROUNDS // AT_ONCE))
        await served.metrics.until_all_closed()
        async with served.peer(tls=client) as newcomer:
            assert await newcomer.ask("/hello") == (200, b"hello")
        await served.metrics.until_all_closed()
        assert served.metrics.closed_by[End.FAULT] == 0
        assert open_files() == before


@pytest.mark.parametrize("over", ["clear", "tls"])
async def test_a_drain_in_the_middle_of_it_ends_everything(over: str, authority: trustme.CA, tmp_path: Path) -> None:
    files, client = tls_of(authority, tmp_path) if over == "tls" else (None, None)
    chance = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    for _ in range(max(1, ROUNDS // 20)):
        async with serving(odd_app(), tls=files, **IMPATIENT) as served, trio.open_nursery() as nursery:
            nursery.start_soon(storm, served, chance, client, 1_000)
            await trio.sleep(chance.random())  # so far they come
            with trio.fail_after(PATIENCE_S):
                await served.listener.end_connections(within_s=0.3)
            count, faults = served.listener.connection_count, served.metrics.closed_by[End.FAULT]
            nursery.cancel_scope.cancel()
        assert (count, faults) == (0, 0)


@pytest.mark.parametrize("over", ["clear", "tls"])
async def test_the_first_frame_is_read_however_soon_behind_the_101_it_comes(
    over: str, authority: trustme.CA, tmp_path: Path
) -> None:
    files, client = tls_of(authority, tmp_path) if over == "tls" else (None, None)
    echoed = []

    async def talk(served: Served, number: int) -> None:
        async with served.peer(tls=client) as peer:
            await peer.send(upgrade("/ws/echo"))
            await peer.read_until(b"\r\n\r\n")
            await peer.send(frame(Op.TEXT, b"%03d" % number))
            echoed.append(await peer.read_exactly(5))

    async with serving(odd_app(), tls=files) as served, trio.open_nursery() as nursery:
        for number in range(SOON):
            nursery.start_soon(talk, served, number)
    assert sorted(echoed) == [b"\x81\x03%03d" % number for number in range(SOON)]


@pytest.mark.parametrize("over", ["clear", "tls"])
async def test_a_peer_that_vanishes_under_a_stuck_write_is_given_up_and_nobody_is_blamed(
    over: str, authority: trustme.CA, tmp_path: Path
) -> None:
    files, client = tls_of(authority, tmp_path) if over == "tls" else (None, None)
    patient = {**IMPATIENT, "send_timeout_s": 60.0}
    async with serving(odd_app(), tls=files, **patient) as served, served.peer(tls=client, receive_buffer=4096) as peer:
        await peer.send(upgrade("/ws/spout"))
        await peer.read_until(b"\r\n\r\n")
        vanish(peer.transport)
        await served.metrics.until_closed(End.GONE)
