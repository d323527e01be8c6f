"""Direct requests over the whole way: a caller's HTTP, the gateway, a node's socket, and back."""

from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import trio

from skygw.control.direct_rpc import HELD_BYTES
from skygw.ids import CallId
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.gateway_frames import DirectCancel, DirectCredit, DirectRequest
from skygw.protocol.node_frames import DirectError, DirectResponseStart
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, end_of, gateway, start_of


async def test_an_answer_comes_back_byte_for_byte_with_its_headers(postgres: PostgresServer, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 1_000
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            request = await node.hear(DirectRequest)
            assert request.params.text == '{"asset_uid":"x","someKey":1}'
            await node.answer(request, payload)

        nursery.start_soon(play)
        answer = await world.direct("asset.read", {"asset_uid": "x", "someKey": 1}, requestId="mine-1")
        assert answer.status_code == 200
        assert answer.content == payload
        assert answer.headers["content-length"] == str(len(payload))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-skygw-request-id"] == "mine-1"
        assert answer.headers["x-skygw-epoch"] == str(node.epoch)
        record = await world.ask("GET", "/internal/calls/mine-1")
        assert record.json()["outcome"] == "succeeded"


async def test_an_answer_of_unknown_size_is_chunked_and_ends_cleanly(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            request = await node.hear(DirectRequest)
            await node.say(start_of(request.id, None), pack_chunk(Chunk(request.id, 0, b"abc")))
            await node.say(end_of(request.id, b"abc", chunks=1))

        nursery.start_soon(play)
        answer = await world.direct()
        assert answer.content == b"abc"
        assert "content-length" not in answer.headers


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("image/FITS ", "image/fits"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("text/plain\r\nset-cookie: a=b", "application/octet-stream"),
    ],
)
async def test_only_types_that_no_browser_runs_are_passed_on(
    said: str, passed: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            request = await node.hear(DirectRequest)
            await node.say(
                DirectResponseStart.model_validate(
                    {"id": request.id, "content_type": said, "total_size": 0, "metadata": None}
                ),
                end_of(request.id, b"", chunks=0),
            )

        nursery.start_soon(play)
        answer = await world.direct()
        assert answer.headers["content-type"] == passed
        assert "set-cookie" not in answer.headers
        assert answer.content == b""


@pytest.mark.parametrize(
    ("code", "status", "reason", "outcome"),
    [
        ("not_found", 404, "node_refused", "refused"),
        ("invalid", 422, "node_refused", "refused"),
        ("acts_not_allowed", 502, "node_failed", "failed"),
        ("conflict", 409, "node_refused", "refused"),
    ],
)
async def test_the_nodes_own_word_reaches_the_caller(
    code: str, status: int, reason: str, outcome: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            request = await node.hear(DirectRequest)
            await node.say(DirectError(id=request.id, code=code, message="no such thing"))

        nursery.start_soon(play)
        answer = await world.direct(requestId="theirs")
        problem = answer.json()
        assert answer.status_code == status
        assert (problem["code"], problem["outcome"], problem["hop"]) == (reason, outcome, "node")
        assert problem["requestId"] == "theirs"
        assert problem["details"]["node"]["code"] == code


async def test_a_silent_node_is_not_waited_for_beyond_the_deadline_and_is_told(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        answer = await world.direct(timeoutS=0.3)
        assert answer.status_code == 504
        problem = answer.json()
        assert (problem["code"], problem["outcome"]) == ("deadline_exceeded", "unknown")
        assert (problem["retry"], problem["reached"]) == ("query_first", "written")
        request = await node.hear(DirectRequest)
        assert request.deadline_ms <= 300
        assert (await node.hear(DirectCancel)).id == request.id


async def test_a_caller_that_leaves_before_the_answer_cancels_it_at_the_node(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.direct)
            request = await node.hear(DirectRequest)
            nursery.cancel_scope.cancel()
        assert (await node.hear(DirectCancel)).id == request.id
        assert (await world.node_view())["callsInFlight"] == 0


async def test_a_caller_that_leaves_midway_cancels_it_at_the_node(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        async with world.caller("big") as caller:
            request = await node.hear(DirectRequest)
            await node.say(start_of(request.id, 3_000), pack_chunk(Chunk(request.id, 0, b"x" * 1_000)))
            await node.hear(DirectCredit)  # the next chunk is a piece of its own
            await node.say(pack_chunk(Chunk(request.id, 1, b"x" * 1_000)))
            received = b""
            with trio.fail_after(PATIENCE_S):
                while not received.endswith(b"xxx"):
                    received += await caller.receive_some()
        assert (await node.hear(DirectCancel)).id == request.id


@pytest.mark.parametrize("fault", ["digest", "length", "order", "overrun", "link", "error"])
@pytest.mark.parametrize("sized", [True, False])
async def test_an_answer_that_fails_midway_never_ends_cleanly(
    fault: str, sized: bool, postgres: PostgresServer, tmp_path: Path
) -> None:
    half = 2 * HELD_BYTES
    payload = b"x" * 2 * half
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:
        heard = trio.Event()

        async def play() -> None:
            request = await node.hear(DirectRequest)
            chunks = [pack_chunk(Chunk(request.id, seq, payload[:half])) for seq in range(4)]
            await node.say(start_of(request.id, len(payload) if sized else None), chunks[0])
            with trio.fail_after(PATIENCE_S):
                await node.hear(DirectCredit)  # the caller's side has taken it
            match fault:
                case "digest":
                    await node.say(chunks[1], end_of(request.id, b"y" * len(payload), chunks=2))
                case "length":
                    await node.say(end_of(request.id, payload, chunks=1))
                case "order":
                    await node.say(chunks[2])
                case "overrun":
                    for chunk in chunks[1:]:
                        await node.say(chunk)
                        if not sized:  # else all that was announced has come, and no more is asked for
                            await node.hear(DirectCredit)  # each is a piece of its own
                    await node.say(end_of(request.id, payload, chunks=4))
                case "link":
                    await trio.aclose_forcefully(node.socket._stream)
                case _:
                    await node.say(DirectError(id=request.id, code="internal", message="the disk died"))
            heard.set()

        nursery.start_soon(play)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await world.direct(requestId="broken")
        await heard.wait()
        record = (await world.ask("GET", "/internal/calls/broken")).json()
        expected = {"link": "link_lost", "error": "node_failed"}.get(fault, "bad_response")
        assert record["reason"] == expected
        assert record["outcome"] == ("failed" if fault == "error" else "unknown")


async def test_an_answer_that_fails_before_its_first_byte_was_passed_on_is_a_problem_with_its_reason(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """What is not longer than what is held back is verified whole before anything of it is said."""
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            request = await node.hear(DirectRequest)
            chunk = pack_chunk(Chunk(request.id, 0, b"x" * HELD_BYTES))
            await node.say(start_of(request.id, None), chunk, end_of(request.id, b"y" * HELD_BYTES, chunks=1))

        nursery.start_soon(play)
        answer = await world.direct()
        assert answer.status_code == 502
        assert (answer.json()["code"], answer.json()["outcome"]) == ("bad_response", "unknown")


async def test_a_link_cut_before_the_answer_is_said_with_the_doubt(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:

        async def play() -> None:
            await node.hear(DirectRequest)
            await trio.aclose_forcefully(node.socket._stream)

        nursery.start_soon(play)
        answer = await world.direct()
        assert answer.status_code == 502
        assert (answer.json()["code"], answer.json()["outcome"]) == ("link_lost", "unknown")


async def test_a_slow_caller_holds_up_neither_the_node_nor_other_callers(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    credit = 256 * 1024
    async with (
        gateway(postgres, tmp_path, direct_credit_bytes=credit) as world,
        world.node() as node,
        world.caller("big"),  # reads nothing
        trio.open_nursery() as nursery,
    ):
        big = await node.hear(DirectRequest)
        assert (big.operation, big.credit) == ("big", credit)
        await node.say(start_of(big.id, None))
        piece, seq, left = b"z" * 65_536, 0, big.credit
        refills = 0

        async def push() -> None:
            """Sends what the credit allows until no more of it comes, as a good node does."""
            nonlocal seq, left, refills
            while True:
                while left >= len(piece):
                    await node.say(pack_chunk(Chunk(big.id, seq, piece)))
                    seq, left = seq + 1, left - len(piece)
                found = await node.hear_one_of(DirectCredit, DirectRequest)
                if isinstance(found, DirectRequest):
                    await node.answer(found, b"quick")
                else:
                    assert isinstance(found, DirectCredit)
                    left += found.bytes
                    refills += 1

        nursery.start_soon(push)
        for _ in range(20):
            answer = await world.direct("small")
            assert answer.content == b"quick"
        nursery.cancel_scope.cancel()
    assert refills > 0


async def all_of(stream: trio.SocketStream) -> int:
    """Reads to the end; how many bytes there were."""
    count = 0
    with trio.fail_after(PATIENCE_S):
        while piece := await stream.receive_some():
            count += len(piece)
    return count


async def test_a_caller_who_takes_its_answer_too_slowly_is_cut_at_its_deadline(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with (
        gateway(postgres, tmp_path) as world,
        world.node() as node,
        world.caller("big", timeoutS=0.5, requestId="too-slow") as caller,
    ):
        request = await node.hear(DirectRequest)
        await node.say(start_of(request.id, None))
        seq, left = 0, request.credit
        while True:  # until the caller's socket is full too
            while left >= 65_536:
                await node.say(pack_chunk(Chunk(request.id, seq, b"z" * 65_536)))
                seq, left = seq + 1, left - 65_536
            found = await node.hear_one_of(DirectCredit, DirectCancel)
            if isinstance(found, DirectCancel):
                break
            assert isinstance(found, DirectCredit)
            left += found.bytes
        assert found.id == request.id
        assert (await world.node_view())["callsInFlight"] == 0
        record = (await world.ask("GET", "/internal/calls/too-slow")).json()
        assert (record["outcome"], record["reason"]) == ("unknown", "deadline_exceeded")
        with pytest.raises(trio.BrokenResourceError):  # a reset, and no clean end
            await all_of(caller)


async def test_more_calls_than_a_node_takes_are_busy(postgres: PostgresServer, tmp_path: Path) -> None:
    async with (
        gateway(postgres, tmp_path, max_calls_per_node=1) as world,
        world.node() as node,
        world.caller("first"),
    ):
        await node.hear(DirectRequest)
        answer = await world.direct()
        assert answer.status_code == 429
        assert answer.json()["code"] == "busy"
        assert answer.headers["retry-after"] == "1"


async def test_a_node_that_is_away_is_said_or_waited_for(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        answer = await world.direct()
        assert (answer.status_code, answer.json()["code"]) == (503, "node_offline")
        assert (answer.json()["outcome"], answer.json()["retry"]) == ("not_sent", "after")
        assert int(answer.headers["retry-after"]) >= 1
        async with trio.open_nursery() as nursery:
            answers = trio.open_memory_channel[httpx.Response](1)

            async def ask() -> None:
                answers[0].send_nowait(await world.direct(connectWaitS=10, timeoutS=15))

            nursery.start_soon(ask)
            async with world.node() as node:
                await node.answer(await node.hear(DirectRequest), b"here now")
                assert (await answers[1].receive()).content == b"here now"


@pytest.mark.parametrize("header", ["garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "x" * 5_000, "00-a-b"])
async def test_a_broken_traceparent_is_replaced_and_refuses_nothing(
    header: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:
        seen = trio.open_memory_channel[DirectRequest](1)

        async def play() -> None:
            request = await node.hear(DirectRequest)
            seen[0].send_nowait(request)
            await node.answer(request, b"fine")

        nursery.start_soon(play)
        answer = await world.ask(
            "POST", world.direct_path, {"operation": "a", "params": {}}, headers={"traceparent": header}
        )
        assert answer.content == b"fine"
        carried = (await seen[1].receive()).traceparent
        assert carried is not None
        assert carried.startswith("00-")
        assert header not in carried


async def test_a_reply_for_nobody_is_dropped(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:
        nobody = CallId(uuid4())
        await node.say(start_of(nobody, 3), pack_chunk(Chunk(nobody, 0, b"abc")), end_of(nobody, b"abc", chunks=1))
        nursery.start_soon(node.serve_echoes)
        answer = await world.direct(params={"still": "here"})
        assert answer.json() == {"still": "here"}
        metrics = await world.ask("GET", "/metrics")
        assert "skygw" in metrics.text
        nursery.cancel_scope.cancel()
