"""Direct requests on a node over a real socket: answered, paid for with credit, cancelled, refused."""

import hashlib

import pytest
import trio

from skygw.client.direct import DirectCall, OperationRefused
from skygw.client.node import NodeClient
from skygw.client.piece_size import SMALLEST
from skygw.protocol.chunks import Chunk
from skygw.protocol.gateway_frames import DirectCancel, DirectCredit, DirectRequest
from skygw.protocol.limits import MAX_CHUNK_PAYLOAD
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart, Pong
from skygw.protocol.node_frames import Ping as PingFrame
from tests.client.conftest import MakeConfig, running
from tests.fakes.gateway import FakeGateway, FakeSession


def reason(error: DirectError) -> object:
    return None if error.details is None else error.details.value["reason"]


def chunks_of(session: FakeSession) -> list[Chunk]:
    return [heard for heard in session.heard if isinstance(heard, Chunk)]


async def test_a_response_is_started_cut_into_chunks_and_ended_with_its_digest(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    data = bytes(range(256)) * 3_000

    @client.operation("asset.read", effects="none")
    async def read(call: DirectCall) -> None:
        assert (call.offset, call.length, call.params.value) == (5, 6, {"asset_uid": "a"})
        await call.start("image/fits", total_size=len(data), metadata={"row": 1})
        await call.send(data)

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("asset.read", {"asset_uid": "a"}, offset=5, length=6))
        start = await session.hear(DirectResponseStart)
        end = await session.hear(DirectResponseEnd)

    chunks = chunks_of(session)
    assert (start.content_type, start.total_size) == ("image/fits", len(data))
    assert [chunk.seq for chunk in chunks] == list(range(end.chunks))
    assert len(chunks[0].payload) == SMALLEST
    assert all(SMALLEST <= len(chunk.payload) <= MAX_CHUNK_PAYLOAD for chunk in chunks[:-1])
    assert b"".join(chunk.payload for chunk in chunks) == data
    assert (end.total_size, end.sha256) == (len(data), hashlib.sha256(data).hexdigest())


async def test_no_more_is_sent_than_the_credit_allows(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())

    @client.operation("asset.read", effects="none")
    async def read(call: DirectCall) -> None:
        await call.start("application/octet-stream")
        await call.send(b"x" * 1_000)

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        request = session.request("asset.read", credit=300)
        await session.say(request)
        await session.hear(DirectResponseStart)
        first = await session.next()
        await session.say(PingFrame(id="after"))
        after = await session.next()  # a node that ignored the credit would have sent the rest before its pong
        await session.say(DirectCredit(id=request.id, bytes=700))
        end = await session.hear(DirectResponseEnd)

    assert isinstance(first, Chunk)
    assert len(first.payload) == 300
    assert isinstance(after, Pong)
    assert end.total_size == 1_000


async def test_a_cancel_reaches_the_handler_and_nothing_more_is_said(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    canceled = trio.Event()

    @client.operation("log.tail", effects="none")
    async def tail(call: DirectCall) -> None:
        await call.start("text/plain")
        try:
            await trio.sleep_forever()
        finally:
            canceled.set()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        request = session.request("log.tail")
        await session.say(request)
        await session.hear(DirectResponseStart)
        await session.say(DirectCancel(id=request.id, reason="caller gone"))
        with trio.fail_after(5):
            await canceled.wait()
        await session.say(PingFrame(id="after"))
        after = await session.next()

    assert isinstance(after, Pong)


async def test_the_loss_of_the_link_cancels_the_handler(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())
    canceled = trio.Event()

    @client.operation("log.tail", effects="none")
    async def tail(call: DirectCall) -> None:
        await call.start("text/plain")
        try:
            await trio.sleep_forever()
        finally:
            canceled.set()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("log.tail"))
        await session.hear(DirectResponseStart)
        await session.close(4001)
        with trio.fail_after(5):
            await canceled.wait()
        again = await gateway.accept()

    assert again.hello.instance_uid == session.hello.instance_uid


async def test_a_handler_is_cancelled_at_the_deadline(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())

    @client.operation("device.read", effects="none")
    async def read(call: DirectCall) -> None:
        await trio.sleep_forever()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("device.read", deadline_ms=50))
        error = await session.hear(DirectError)

    assert reason(error) == "deadline_exceeded"


async def test_a_request_that_lay_in_a_stalled_connection_is_refused_as_late(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    now = [5_000.0]
    client = NodeClient(make_config(), now_ms=lambda: now[0])
    ran: list[str] = []

    @client.operation("device.read", effects="none")
    async def read(call: DirectCall) -> None:
        ran.append(call.operation)

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await client.wait_connected()
        now[0] += 30_000
        await session.say(session.request("device.read", t_ms=0, deadline_ms=10_000))
        error = await session.hear(DirectError)

    assert (error.code, reason(error)) == ("conflict", "deadline_exceeded")
    assert ran == []


async def test_what_is_not_registered_is_not_run(gateway: FakeGateway, make_config: MakeConfig) -> None:
    async with running(NodeClient(make_config())):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("mount.slew"))
        error = await session.hear(DirectError)

    assert (error.code, reason(error)) == ("not_found", "acts_not_allowed")


async def test_an_operation_that_acts_cannot_be_registered(make_config: MakeConfig) -> None:
    client = NodeClient(make_config())
    with pytest.raises(ValueError, match="what moves hardware is a command"):

        @client.operation("mount.slew", effects="moves")
        async def slew(call: DirectCall) -> None:
            await call.start("text/plain")


@pytest.mark.parametrize("what", ["nothing", "too little", "raises", "refuses"])
async def test_a_handler_that_fails_ends_its_call_and_nothing_else(
    gateway: FakeGateway, make_config: MakeConfig, what: str
) -> None:
    client = NodeClient(make_config())

    @client.operation("device.read", effects="none")
    async def read(call: DirectCall) -> None:
        if what == "too little":
            await call.start("text/plain", total_size=10)
            await call.send(b"short")
        elif what == "raises":
            raise OSError("the driver is gone")
        elif what == "refuses":
            raise OperationRefused("not_found", "No such device.", {"reason": "no_device"})

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.request("device.read"))
        error = await session.hear(DirectError)
        await session.say(PingFrame(id="alive"))
        pong = await session.hear(Pong)

    assert error.code == ("not_found" if what == "refuses" else "internal")
    assert reason(error) == ("no_device" if what == "refuses" else None)
    assert pong.id == "alive"


async def test_more_calls_than_a_node_serves_are_refused_as_busy(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())

    @client.operation("log.tail", effects="none")
    async def tail(call: DirectCall) -> None:
        await trio.sleep_forever()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        requests: list[DirectRequest] = [session.request("log.tail") for _ in range(65)]
        for request in requests:
            await session.say(request)
        error = await session.hear(DirectError)

    assert (error.id, reason(error)) == (requests[-1].id, "busy")
