"""The example node of the docs, run as its reader would run it, against a gateway that this test plays."""

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket

from skygw.ids import CommandId, RegistryUid, SessionUid
from skygw.protocol.chunks import unpack_chunk
from skygw.protocol.codec import Read, encode, from_gateway, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Welcome
from skygw.protocol.limits import Limits
from skygw.protocol.node_frames import Hello, PublishCommandResult

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "minimal_node.py"
INSTALL_ID = "5f1c0b9e-3d34-4a4f-9f0e-0d8a5f6c1a01"
PATIENCE_S = 20
NOON = "2026-11-22T12:00:00Z"


class Socket:
    """One connection of the node, from the gateway's side. Everything it sends must be a frame of the protocol."""

    def __init__(self, websocket: WebSocketConnection, request: WebSocketRequest) -> None:
        self.websocket = websocket
        self.authorization = dict(request.headers).get(b"authorization")
        self.proposed = request.proposed_subprotocols

    async def hears(self) -> Any:
        with trio.fail_after(PATIENCE_S):
            message = await self.websocket.get_message()
        if isinstance(message, bytes):
            return unpack_chunk(message)
        [read] = from_node.decode(message)
        assert isinstance(read, Read), read
        return read.frame

    async def says(self, *messages: str) -> None:
        for message in messages:
            assert all(isinstance(read, Read) for read in from_gateway.decode(message)), message
            await self.websocket.send_message(message)

    async def welcomes(self, *, acked_seq: int = 0, epoch: int = 42) -> Hello:
        hello = await self.hears()
        assert isinstance(hello, Hello)
        await self.says(encode(a_welcome(acked_seq=acked_seq, epoch=epoch)))
        return hello


def a_welcome(*, acked_seq: int, epoch: int) -> Frame:
    return Welcome.model_validate(
        {
            "session_uid": SessionUid(uuid4()),
            "epoch": epoch,
            "registry_uid": RegistryUid(uuid4()),
            "heartbeat_s": 60.0,
            "limits": Limits(),
            "server_time": NOON,
            "acked_seq": acked_seq,
            "link_loss_policy": "finish",
            "t_ms": 1_000_000,
        }
    )


def a_command(what: str, command_id: str, *, t_ms: int = 1_000_000, deadline_ms: int = 30_000) -> str:
    return (
        f'{{"kind":"event_command","command_id":"{command_id}","command":{{"command_type":"{what}"}},'
        f'"deadline_ms":{deadline_ms},"epoch":42,"t_ms":{t_ms},"issued_at":"{NOON}"}}'
    )


class Site:
    """A folder, the running example, and the sockets it opens."""

    def __init__(self, folder: Path, sockets: trio.MemoryReceiveChannel[Socket], process: trio.Process) -> None:
        self.folder = folder
        self.sockets = sockets
        self.process = process
        self._printed = b""

    async def connects(self) -> Socket:
        with trio.fail_after(PATIENCE_S):
            return await self.sockets.receive()

    async def prints(self) -> str:
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE_S):
            while b"\n" not in self._printed:
                more = await self.process.stdout.receive_some()
                assert more, "the example has ended"
                self._printed += more
        line, self._printed = self._printed.split(b"\n", 1)
        return line.decode()


@asynccontextmanager
async def a_site(folder: Path) -> AsyncIterator[Site]:
    """Runs the example in `folder` until the block ends; then kills it, as a power cut would."""
    (folder / "token").write_text("a-token\n")
    send, receive = trio.open_memory_channel[Socket](8)

    async def accept(request: WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol="skynet.node.v1")
        await send.send(Socket(websocket, request))
        await trio.sleep_forever()  # the socket closes when this ends

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_websocket, accept, "127.0.0.1", 0, None, disconnect_timeout=1, message_queue_size=16)
        )
        process = await trio.lowlevel.open_process(
            [sys.executable, "-u", str(EXAMPLE), f"ws://127.0.0.1:{server.port}/v1/ws/node", INSTALL_ID, str(folder)],
            stdout=-1,
            env={},
        )
        try:
            yield Site(folder, receive, process)
        finally:
            process.kill()
            with trio.fail_after(PATIENCE_S), trio.CancelScope(shield=True):
                await process.wait()
            if process.stdout is not None:
                await trio.aclose_forcefully(process.stdout)
            nursery.cancel_scope.cancel()


def test_the_example_is_as_short_as_the_docs_say_and_stands_on_one_package() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 120
    assert "skygw" not in text


async def test_it_comes_with_its_token_and_says_hello_first(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        hello = await socket.welcomes()
        assert socket.authorization == b"Bearer a-token"
        assert list(socket.proposed) == ["skynet.node.v1"]
        assert str(hello.install_id) == INSTALL_ID
        assert hello.last_epoch == 0


async def test_it_answers_a_ping_alone_and_in_an_array(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        await socket.says(
            '{"kind":"ping","id":"a","t_ms":1000001}', '[{"kind":"ping","id":"b"},{"kind":"ping","id":"c"}]'
        )
        assert [(await socket.hears()).id for _ in range(3)] == ["a", "b", "c"]


async def test_it_reads_an_asset_in_pieces_and_never_beyond_its_credit(tmp_path: Path) -> None:
    asset, call = uuid4(), uuid4()
    (tmp_path / "assets").mkdir()
    content = bytes(range(256)) * 1_000
    (tmp_path / "assets" / str(asset)).write_bytes(content)
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        await socket.says(
            f'{{"kind":"direct_request","id":"{call}","operation":"asset.read","params":{{"asset_uid":"{asset}"}},'
            '"offset":1000,"length":200000,"deadline_ms":20000,"credit":70000,"epoch":42,"t_ms":1000001}'
        )
        start = await socket.hears()
        assert (start.kind, start.id, start.total_size) == ("direct_response_start", call, 200_000)
        got, chunks = b"", count()
        for credit in (70_000, 100_000, 30_000):
            if got:
                # The answer to the ping comes before anything the new credit lets go: nothing was sent beyond the old.
                await socket.says('{"kind":"ping","id":"still"}')
                assert (await socket.hears()).kind == "pong"
                await socket.says(f'{{"kind":"direct_credit","id":"{call}","bytes":{credit}}}')
            goal = len(got) + credit
            while len(got) < goal:
                piece = await socket.hears()
                assert (piece.id, piece.seq) == (call, next(chunks))
                got += piece.payload
            assert len(got) == goal
        end = await socket.hears()
        assert got == content[1_000:201_000]
        assert (end.kind, end.chunks, end.total_size) == ("direct_response_end", next(chunks), 200_000)
        assert end.sha256 == hashlib.sha256(got).hexdigest()


async def test_it_refuses_what_it_does_not_have_or_know(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        for operation, asset in (("asset.read", str(uuid4())), ("asset.read", "../token"), ("disk.format", "x")):
            await socket.says(
                f'{{"kind":"direct_request","id":"{uuid4()}","operation":"{operation}",'
                f'"params":{{"asset_uid":"{asset}"}},"deadline_ms":20000,"credit":1,"epoch":42,"t_ms":1000001}}'
            )
            assert (await socket.hears()).kind == "direct_error"


async def test_a_canceled_request_is_answered_no_further(tmp_path: Path) -> None:
    asset, call = uuid4(), uuid4()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / str(asset)).write_bytes(b"sky")
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        await socket.says(
            f'{{"kind":"direct_request","id":"{call}","operation":"asset.read","params":{{"asset_uid":"{asset}"}},'
            '"deadline_ms":20000,"credit":0,"epoch":42,"t_ms":1000001}'
        )
        assert (await socket.hears()).kind == "direct_response_start"
        await socket.says(
            f'[{{"kind":"direct_cancel","id":"{call}","reason":"gone"}},{{"kind":"ping","id":"p"}}]',
            f'[{{"kind":"direct_credit","id":"{call}","bytes":100}},{{"kind":"ping","id":"q"}}]',
        )
        assert [(await socket.hears()).kind for _ in range(2)] == ["pong", "pong"]


async def the_results(socket: Socket, number: int) -> list[tuple[int, CommandId, str]]:
    results = [await socket.hears() for _ in range(number)]
    assert all(isinstance(result, PublishCommandResult) for result in results)
    return [(result.seq, result.command_id, result.status) for result in results]


async def test_it_runs_a_command_once_and_says_so_with_contiguous_sequences(tmp_path: Path) -> None:
    park = str(uuid4())
    uid = UUID(park)
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        await socket.says(a_command("mount.park", park))
        assert await the_results(socket, 2) == [(1, uid, "accepted"), (2, uid, "completed")]
        assert await site.prints() == f"mount.park {park}"
        await socket.says(a_command("mount.park", park), a_command("mount.stop", str(uuid4())))
        assert (await the_results(socket, 3))[0] == (3, uid, "completed")
        assert (await site.prints()).startswith("mount.stop")


async def test_a_late_command_is_refused_and_a_late_stop_is_run(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        # Stamped a quarter of an hour before the welcome: as the node sees it, it was on its way that long.
        an_age_before = 1_000_000 - 900_000
        await socket.says(a_command("mount.park", str(uuid4()), t_ms=an_age_before))
        refused = await socket.hears()
        assert refused.status == "rejected"
        assert refused.error.value["details"] == {"reason": "deadline_exceeded"}
        stop = str(uuid4())
        await socket.says(a_command("mount.stop", stop, t_ms=an_age_before))
        assert [status for _, _, status in await the_results(socket, 2)] == ["accepted", "completed"]
        assert await site.prints() == f"mount.stop {stop}"


async def test_a_command_canceled_before_it_came_is_never_run(tmp_path: Path) -> None:
    park, stop = str(uuid4()), str(uuid4())
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        await socket.welcomes()
        await socket.says(
            f'{{"kind":"cancel_command","command_id":"{park}","mode":"immediate","epoch":42,"t_ms":1000001}}',
            a_command("mount.park", park),
            a_command("mount.stop", stop),
        )
        assert [status for _, _, status in await the_results(socket, 4)] == [
            "canceled",
            "canceled",
            "accepted",
            "completed",
        ]
        assert await site.prints() == f"mount.stop {stop}"


async def test_after_a_power_cut_it_knows_its_epoch_its_commands_and_what_was_not_acked(tmp_path: Path) -> None:
    park = str(uuid4())
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        first = await socket.welcomes(epoch=42)
        await socket.says(a_command("mount.park", park))
        await the_results(socket, 2)
        await socket.says(f'{{"kind":"ack","seq":1,"outbox_uid":"{first.outbox_uid}"}}', '{"kind":"ping"}')
        assert (await socket.hears()).kind == "pong"
    async with a_site(tmp_path) as site:
        socket = await site.connects()
        second = await socket.welcomes(acked_seq=1, epoch=43)
        assert (second.last_epoch, second.results) == (42, (UUID(park),))
        assert (second.instance_uid, second.outbox_uid) == (first.instance_uid, first.outbox_uid)
        assert second.boot_id != first.boot_id
        assert await the_results(socket, 1) == [(2, UUID(park), "completed")]
        await socket.says(a_command("mount.park", park))
        assert await the_results(socket, 1) == [(3, UUID(park), "completed")]


async def test_it_comes_back_at_once_after_a_drain_and_late_when_it_was_superseded(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        first = await site.connects()
        await first.welcomes()
        await first.websocket.aclose(4001, "draining")
        second = await site.connects()
        await second.welcomes()
        await second.websocket.aclose(4501, "another socket of this instance")
        soon, late = await site.prints(), await site.prints()
        assert "draining" in soon
        assert "another socket of this instance" in late
        assert float(soon.split()[-2]) <= 0.5
        assert 300 <= float(late.split()[-2]) <= 900
