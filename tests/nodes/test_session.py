"""One node socket, from its welcome to its goodbye."""

from math import inf
from time import time
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.errors import Busy, Forbidden, LinkLost, RoutingUnavailable, Unauthenticated
from skygw.nodes.admission import Arrival
from skygw.nodes.link import LAST_WORDS_S
from skygw.nodes.outbox import LANE_BYTES, Lane, ParcelState
from skygw.nodes.session import SessionRules
from skygw.protocol.chunks import HEADER_BYTES
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import encode
from skygw.protocol.gateway_frames import (
    Ack,
    CancelCommand,
    CancelMode,
    DirectCancel,
    EventToken,
    Goaway,
    TokenState,
    Welcome,
)
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import AuthRefresh, Error, ErrorCode, Ping, Pong, PublishLog
from skygw.websocket import Rhythm, WebSocket
from skygw.websocket.frames import CLOSE, TEXT, Close, close_payload, frame
from tests.fakes.memory_transport import MemoryTransport
from tests.fakes.moments import NOW
from tests.fakes.rooms import Gateway, Site

if TYPE_CHECKING:
    from skygw.protocol.frame import Frame

Clock = trio.testing.MockClock
MASK = bytes(4)


def stop(gateway: Gateway, site: Site) -> CancelCommand:
    session = gateway.session(site)
    return CancelCommand(command_id=uuid4(), mode=CancelMode.IMMEDIATE, epoch=session.epoch, t_ms=session.t_ms())


def some_data(size: int = 10) -> Goaway:
    return Goaway(reason="x" * size, reconnect_after_ms=0)


async def test_welcome_is_the_first_word_whatever_was_queued_before(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    arrived = trio.Event()

    async def stop_at_once() -> None:
        session = await gateway.registry.connected(site.install_id)
        session.put(Lane.SAFING, stop(gateway, site))
        arrived.set()

    nursery.start_soon(stop_at_once)
    link = gateway.accept(site)
    link.say(site.hello(last_epoch=41))
    await arrived.wait()
    first = await link.hear()
    assert isinstance(first, Welcome)
    assert first.epoch == 42
    assert first.registry_uid == gateway.epochs.registry_uid


async def test_a_node_that_answers_is_pinged_every_heartbeat_and_its_round_trip_is_known(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    began = trio.current_time()
    at = []
    for _ in range(5):
        ping = await link.hear_next(Ping)
        at.append(trio.current_time() - began)
        await trio.sleep(0.25)
        link.say(Pong(id=ping.id))
    await trio.testing.wait_all_tasks_blocked()
    assert at == pytest.approx([10, 20, 30, 40, 50])
    assert gateway.session(site).round_trip_s == pytest.approx(0.25)
    assert gateway.session(site).ending is None


async def test_a_silent_node_is_dead_after_25_seconds(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    began = trio.current_time()
    await link.served.wait()
    assert trio.current_time() - began == pytest.approx(25)
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.SILENT


async def test_silence_is_noticed_however_the_clock_rounds(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    await trio.sleep(1.6)  # (1.6 + 2.5) - 1.6 is less than 2.5 in floating point
    gateway, site = Gateway(nursery, SessionRules(heartbeat_s=10, dead_after_s=2.5)), Site()
    link = await gateway.connect(site)
    with trio.fail_after(10):
        await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.SILENT]


async def test_any_received_message_is_life(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    messages: list[str | bytes | Frame] = [
        Ping(id="1"),
        '{"kind":"something_new"}',
        bytes(HEADER_BYTES),
        '{"kind":"publish_snapshot"}',
    ]
    for message in messages:
        await trio.sleep(24)
        link.say(message)
    await trio.sleep(24)
    assert gateway.session(site).ending is None
    await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.SILENT]


async def test_a_node_that_talks_but_does_not_read_is_cut_within_bounded_time_and_callers_are_told(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.stall()
    session = gateway.session(site)
    writing = session.put(Lane.DATA, some_data())
    await trio.testing.wait_all_tasks_blocked()
    waiting = session.put(Lane.DATA, some_data())

    async def talk() -> None:
        while session.ending is None:
            link.say(Ping(id="alive"))
            await trio.sleep(5)

    nursery.start_soon(talk)
    began = trio.current_time()
    await link.served.wait()
    assert trio.current_time() - began <= gateway.rules.dead_after_s + 2 * LAST_WORDS_S
    assert link.aborted.is_set()
    assert gateway.metrics.ended_with == [CloseCode.SLOW_CONSUMER]
    assert writing.state is ParcelState.DOUBTFUL
    assert waiting.surely_not_sent
    assert gateway.registry.current(site.install_id) is None


async def test_a_stuck_send_does_not_keep_a_session_that_ends(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.stall()
    session = gateway.session(site)
    writing = session.put(Lane.DATA, some_data())
    await trio.testing.wait_all_tasks_blocked()
    session.end(CloseCode.REVOKED, "revoked")
    with trio.move_on_after(10 * LAST_WORDS_S):
        await link.served.wait()
    assert link.served.is_set()
    assert link.aborted.is_set()
    assert writing.state is ParcelState.DOUBTFUL


async def test_a_stuck_close_does_not_keep_a_session_that_ends(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.stall()
    gateway.session(site).end(CloseCode.REVOKED, "revoked")
    with trio.move_on_after(10 * LAST_WORDS_S):
        await link.served.wait()
    assert link.served.is_set()


async def test_a_session_cancelled_from_outside_drops_its_connection_even_in_a_stuck_send(
    autojump_clock: Clock,
) -> None:
    with trio.move_on_after(60) as patience:
        async with trio.open_nursery() as process:
            gateway, site = Gateway(process), Site()
            link = await gateway.connect(site)
            link.stall()
            gateway.session(site).put(Lane.DATA, some_data())
            await trio.testing.wait_all_tasks_blocked()
            process.cancel_scope.cancel()
    assert not patience.cancelled_caught
    assert link.aborted.is_set()


async def test_a_full_data_lane_is_busy_and_a_full_control_lane_ends_the_session(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.stall()
    session = gateway.session(site)

    def fill(lane: Lane) -> None:
        for _ in range(LANE_BYTES[lane] // 1_900):
            session.put(lane, some_data(1_900))

    with pytest.raises(Busy):
        fill(Lane.DATA)
    assert session.ending is None
    with pytest.raises(LinkLost):
        fill(Lane.CONTROL)
    assert session.ending is not None
    assert session.ending.code == CloseCode.SLOW_CONSUMER


async def test_the_first_reason_to_end_wins_and_is_what_the_node_is_told(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    session = gateway.session(site)
    session.end(CloseCode.REVOKED, "revoked")
    session.end(CloseCode.DRAINING, "draining")
    await link.served.wait()
    assert link.closed_with == (CloseCode.REVOKED, "revoked")
    assert not link.aborted.is_set(), "aborting would take the close frame back"
    last_close = gateway.registry.memory(site.install_id).last_close
    assert last_close is not None
    assert (last_close.code, last_close.by_node) == (CloseCode.REVOKED, False)


async def test_going_away_is_announced_before_the_close(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.session(site).announce_end("draining", reconnect_after_ms=1_500)
    gateway.session(site).end(CloseCode.DRAINING, "draining")
    goaway = await link.hear_next(Goaway)
    await link.served.wait()
    assert goaway.reconnect_after_ms == 1_500
    assert link.closed_with == (CloseCode.DRAINING, "draining")


async def test_a_nodes_own_goodbye_is_remembered_with_its_code(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.hang_up(1001, "night is over")
    await link.served.wait()
    last_close = gateway.registry.memory(site.install_id).last_close
    assert last_close is not None
    assert (last_close.code, last_close.reason, last_close.by_node) == (1001, "night is over", True)
    assert link.closed_with is None


# The token.


async def test_a_token_that_runs_out_ends_the_socket(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    link = await gateway.connect(site, token_lasts_s=300)
    began = trio.current_time()
    await link.served.wait()
    assert trio.current_time() - began == pytest.approx(300, abs=1)
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.TOKEN_EXPIRED


async def test_a_token_renewed_in_band_keeps_the_socket(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    link = await gateway.connect(site, token_lasts_s=300)
    expires_at = time() + 600
    gateway.tokens.answers["newer"] = expires_at
    link.say(AuthRefresh(token="newer"))
    told = await link.hear_next(EventToken)
    assert told.state is TokenState.RENEWED
    assert told.expires_at.timestamp() == pytest.approx(expires_at)
    await trio.sleep(590)
    assert gateway.session(site).ending is None
    await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.TOKEN_EXPIRED]


async def test_an_older_token_does_not_shorten_a_session(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    link = await gateway.connect(site, token_lasts_s=300)
    gateway.tokens.answers["older"] = time() + 10
    link.say(AuthRefresh(token="older"))
    await link.hear_next(EventToken)
    await trio.sleep(200)
    assert gateway.session(site).ending is None


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Unauthenticated("This token does not hold."), ErrorCode.FORBIDDEN),
        (Forbidden("This token is another installation's."), ErrorCode.FORBIDDEN),
        (RoutingUnavailable("The issuer cannot be asked."), ErrorCode.INTERNAL),
    ],
)
async def test_a_token_that_is_refused_gets_error_and_the_socket_stays(
    autojump_clock: Clock, nursery: trio.Nursery, refusal: Forbidden, code: ErrorCode
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.tokens.answers["wrong"] = refusal
    link.say(AuthRefresh(token="wrong"))
    error = await link.hear_next(Error)
    assert error.code is code
    assert error.details is not None
    assert cast("dict[str, str]", error.details.value)["reason"] == refusal.reason
    assert gateway.session(site).ending is None


async def test_with_the_issuer_away_an_expired_session_stays_for_safing_alone_until_the_grace_ends(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf, issuer_grace_s=900)), Site()
    link = await gateway.connect(site, token_lasts_s=100)
    gateway.tokens.reachable = False
    assert (await link.hear_next(EventToken)).state is TokenState.GRACE
    session = gateway.session(site)
    with pytest.raises(Forbidden):
        session.put(Lane.DATA, some_data())
    session.put(Lane.SAFING, stop(gateway, site))
    await link.hear_next(CancelCommand)
    link.say(PublishLog(seq=1, data=Opaque.of({}), observed_at=NOW))
    assert (await link.hear_next(Ack)).seq == 1
    await trio.sleep(890)
    assert session.ending is None
    await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.TOKEN_EXPIRED]


async def test_a_token_renewed_in_the_grace_time_ends_it(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery, SessionRules(dead_after_s=inf)), Site()
    link = await gateway.connect(site, token_lasts_s=100)
    gateway.tokens.reachable = False
    await link.hear_next(EventToken)
    gateway.tokens.answers["newer"] = time() + 5_000
    link.say(AuthRefresh(token="newer"))
    assert (await link.hear_next(EventToken)).state is TokenState.RENEWED
    gateway.session(site).put(Lane.DATA, DirectCancel(id=uuid4(), reason="passes again"))
    await link.hear_next(DirectCancel)


# On a link with a wire.


@pytest.mark.parametrize(
    ("said", "code"), [(frame(CLOSE, close_payload(1000, ""), MASK), 1000), (b"\xff\x80" + MASK, 4500)]
)
async def test_a_session_does_not_take_back_the_close_frame_that_ended_its_link(
    autojump_clock: Clock, nursery: trio.Nursery, said: bytes, code: int
) -> None:
    """A reset would throw away what waits in the kernel, and on a slow line that is the code."""
    gateway, site = Gateway(nursery), Site()
    transport = MemoryTransport()
    link = WebSocket(
        transport,
        is_client=False,
        max_message_bytes=1 << 20,
        rhythm=Rhythm(),
        violation_code=CloseCode.PROTOCOL_VIOLATION,
    )
    arrival = Arrival(link=link, binding=site.binding, token_expires_at=inf, address="x")
    transport.say(frame(TEXT, encode(site.hello(last_epoch=1)).encode(), MASK) + said)
    await gateway.door.serve(arrival)
    goodbye = transport.said[-1]
    assert isinstance(goodbye, Close)
    assert goodbye.code == code
    assert not transport.aborted
