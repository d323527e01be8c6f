"""What the frames of a node do, and what is answered to those that do nothing."""

from datetime import datetime
from typing import cast
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.ids import Epoch, TelescopeUid
from skygw.nodes.outbox import LANE_BYTES, Lane
from skygw.nodes.ports import Binding
from skygw.nodes.session import SessionRules
from skygw.protocol.chunks import HEADER_BYTES
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import encode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Ack, DirectRequest, Goaway, Nack, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import BURST_S, MAX_BINARY_BYTES, MAX_TEXT_BYTES
from skygw.protocol.node_frames import (
    DirectResponseEnd,
    DirectResponseStart,
    Error,
    ErrorCode,
    Ping,
    Pong,
    PublishLog,
    PublishSnapshot,
    SnapshotStream,
)
from skygw.resources import Unwanted
from tests.fakes.moments import NOW
from tests.fakes.rooms import Gateway, PlayedLink, Site, direct_order

Clock = trio.testing.MockClock


def snapshot(site: Site, *, live_seq: int, observed_at: datetime = NOW) -> PublishSnapshot:
    return PublishSnapshot(
        stream=SnapshotStream.DEVICE_SNAPSHOT,
        data=Opaque.of({"uid": str(site.device_uid), "n": live_seq}),
        observed_at=observed_at,
        live_seq=live_seq,
    )


def line(seq: int, *, text: str = "", observed_at: datetime = NOW, **named: object) -> PublishLog:
    return PublishLog(seq=seq, data=Opaque.of({"text": text, **named}), observed_at=observed_at)


def array(*frames: Frame | str) -> str:
    return "[" + ",".join(frame if isinstance(frame, str) else encode(frame) for frame in frames) + "]"


def some_data(size: int = 10) -> Goaway:
    return Goaway(reason="x" * size, reconnect_after_ms=0)


async def test_a_ping_is_answered_with_its_id(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(Ping(id="mine"))
    assert (await link.hear_next(Pong)).id == "mine"


async def test_a_snapshot_reaches_what_is_retained(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(snapshot(site, live_seq=1))
    await trio.testing.wait_all_tasks_blocked()
    assert [held.uid for held in gateway.snapshots.of(site.install_id)] == [site.device_uid]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"kind":"sing_a_song","id":"7"}', id="unknown kind"),
        pytest.param('{"id":"7"}', id="no kind"),
        pytest.param('{"kind":"publish_log","id":"7"}', id="a bad publish without its seq"),
        pytest.param('{"kind":"ping","id":"7","id":"8"}', id="duplicate key"),
    ],
)
async def test_a_frame_that_is_none_gets_error_and_the_socket_stays(
    autojump_clock: Clock, nursery: trio.Nursery, message: str
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(message)
    error = await link.hear_next(Error)
    assert error.code is ErrorCode.INVALID
    assert error.id in ("7", "8")
    link.say(Ping(id="still here"))
    assert (await link.hear_next(Pong)).id == "still here"


async def test_a_second_hello_gets_error_and_the_socket_stays(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(site.hello())
    assert (await link.hear_next(Error)).code is ErrorCode.CONFLICT
    link.say(Ping(id="still here"))
    assert (await link.hear_next(Pong)).id == "still here"
    assert gateway.epochs.epochs[site.install_id] == 1


@pytest.mark.parametrize(
    "message",
    [
        pytest.param('{"kind":"ping","id":"' + "x" * MAX_TEXT_BYTES + '"}', id="oversize text"),
        pytest.param("€" * (MAX_TEXT_BYTES // 2), id="oversize in bytes alone"),
        pytest.param('{"kind":"ping"', id="broken JSON"),
        pytest.param("[" * 300 + "]" * 300, id="too deep to be read"),
        pytest.param("", id="empty text"),
        pytest.param(b"", id="empty binary"),
        pytest.param(bytes(HEADER_BYTES - 1), id="a binary shorter than its header"),
        pytest.param(bytes(MAX_BINARY_BYTES + 1), id="oversize binary"),
    ],
)
async def test_broken_framing_ends_the_socket_as_a_protocol_violation(
    autojump_clock: Clock, nursery: trio.Nursery, message: str | bytes
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(message)
    await link.served.wait()
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.PROTOCOL_VIOLATION


async def test_what_comes_behind_a_violation_moves_nothing(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say("{")
    link.say(snapshot(site, live_seq=1))
    await link.served.wait()
    assert list(gateway.snapshots.of(site.install_id)) == []


async def test_frames_behind_the_one_that_ended_the_session_move_nothing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    session = gateway.session(site)
    link.stall()
    session.put(Lane.CONTROL, some_data(1))
    await trio.testing.wait_all_tasks_blocked()  # the writer has it, and takes no other
    while LANE_BYTES[Lane.CONTROL] - session.queued_bytes(Lane.CONTROL) > 300:
        session.put(Lane.CONTROL, some_data(1))
    link.say("[" + ",".join([encode(Ping())] * 3 + [encode(snapshot(site, live_seq=1))]) + "]")
    await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.SLOW_CONSUMER]
    assert list(gateway.snapshots.of(site.install_id)) == []


async def test_a_reply_for_nobody_is_counted_and_dropped(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(bytes(HEADER_BYTES) + b"payload")
    link.say(f'{{"kind":"direct_error","id":"{uuid4()}","code":"internal","message":"late"}}')
    await trio.testing.wait_all_tasks_blocked()
    assert gateway.metrics.late_replies == 2
    assert gateway.session(site).ending is None


# What is durable.


async def test_the_reports_of_a_message_are_committed_together_and_in_order_whatever_stands_between_them(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(array(line(1), snapshot(site, live_seq=1), '{"kind":"publish_event","seq":2}', Ping(id="x"), line(3)))
    nack, ack = await link.hear_next(Nack), await link.hear_next(Ack)
    assert (nack.seq, ack.seq) == (2, 3)
    assert [row.nacked is None for row in gateway.reports.rows[site.outbox_uid]] == [True, False, True]
    assert gateway.reports.commits == 1
    assert len(list(gateway.snapshots.of(site.install_id))) == 1


async def test_a_line_about_another_installations_telescope_is_nacked_with_a_sentence_that_names_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    elsewhere = str(TelescopeUid(uuid4()))
    link.say(line(1, telescope_uid=elsewhere))
    nack = await link.hear_next(Nack)
    assert nack.seq == 1
    assert elsewhere in nack.reason
    link.say(line(2, telescope_uid=str(site.telescope_uid)))
    while (await link.hear_next(Ack)).seq < 2:
        pass
    assert [row.telescope_uid for row in gateway.reports.rows[site.outbox_uid]] == [None, site.telescope_uid]


@pytest.mark.parametrize("year", [1, 1970, 2099, 9999])
async def test_a_clock_that_is_years_off_changes_nothing(
    autojump_clock: Clock, nursery: trio.Nursery, year: int
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    then = datetime(year, 6, 1, tzinfo=NOW.tzinfo)
    link.say(array(snapshot(site, live_seq=1), line(1)))
    link.say(array(snapshot(site, live_seq=2, observed_at=then), line(2, observed_at=then)))
    while (await link.hear_next(Ack)).seq < 2:
        pass
    (held,) = gateway.snapshots.of(site.install_id)
    assert (held.order, held.observed_at) == ((1, 2), then)
    assert [row.observed_at for row in gateway.reports.rows[site.outbox_uid]] == [NOW, then]
    assert gateway.session(site).ending is None


async def test_a_line_of_63_kib_is_taken_and_one_that_is_no_message_any_more_ends_the_socket(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(line(1, text="x" * 63 * 1024))
    assert (await link.hear_next(Ack)).seq == 1
    link.say(line(2, text="x" * 65 * 1024))
    await link.served.wait()
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.PROTOCOL_VIOLATION


# Snapshots that are not taken.


async def test_a_snapshot_that_is_not_taken_is_answered_once_in_a_while_and_always_counted(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    offered: list[tuple[Binding, Epoch, PublishSnapshot]] = []

    def offer(*arguments: tuple[Binding, Epoch, PublishSnapshot]) -> Unwanted:
        offered.append(cast("tuple[Binding, Epoch, PublishSnapshot]", arguments))
        return Unwanted("not_found", "This is nothing of yours.")

    monkeypatch.setattr(gateway.snapshots, "offer", offer)
    for live_seq in range(1, 51):
        link.say(snapshot(site, live_seq=live_seq))
    link.say(Ping(id="behind them"))
    error = await link.hear_next(Error)
    await link.hear_next(Pong)  # and no other error before it
    assert (error.code, error.message) == (ErrorCode.NOT_FOUND, "This is nothing of yours.")
    assert error.details is not None
    assert error.details.value == {
        "reason": "not_found",
        "stream": "device_snapshot",
        "uid": str(site.device_uid),
        "unsaid": 0,
    }
    assert [one[:2] for one in offered] == [(site.binding, Epoch(1))] * 50
    assert gateway.metrics.snapshots_refused == {"not_found": 50}
    assert gateway.session(site).ending is None


async def test_streams_that_no_node_publishes_are_refused_as_sparingly(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    for stream in ("manual_control_lease", "node_presence", "the_weather_on_mars"):
        link.say(encode(snapshot(site, live_seq=1)).replace("device_snapshot", stream))
    link.say(Ping(id="behind them"))
    error = await link.hear_next(Error)
    await link.hear_next(Pong)
    assert error.code is ErrorCode.INVALID
    assert "stream" in error.message
    assert gateway.metrics.snapshots_refused == {"invalid": 3}


# Too much.

FEW = SessionRules(frames_per_s=20, bytes_per_s=20_000)


async def flood(link: PlayedLink, site: Site, *, frames: int) -> None:
    for live_seq in range(1, frames + 1):
        link.say(snapshot(site, live_seq=live_seq))
    await link.served.wait()


async def test_a_node_that_floods_is_closed_with_what_it_sent_and_what_it_may(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, site = Gateway(nursery, FEW), Site()
    link = await gateway.connect(site)
    await flood(link, site, frames=300)
    assert link.closed_with is not None
    code, reason = link.closed_with
    assert code == CloseCode.RATE_LIMITED
    assert "201 frames in 0.0 s, and 20 a second is the limit" in reason
    (held,) = gateway.snapshots.of(site.install_id)
    assert held.order == (1, 201)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["node sends too much"]


async def test_a_node_that_sends_too_many_bytes_is_closed_as_well(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery, FEW), Site()
    link = await gateway.connect(site)
    for seq in range(1, 6):
        link.say(line(seq, text="x" * 60_000))
    await link.served.wait()
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.RATE_LIMITED
    assert "bytes" in link.closed_with[1]


async def test_coming_back_does_not_refill_the_account_and_what_was_taken_before_stays_taken(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, SessionRules(frames_per_s=4)), Site()  # 200 reports at once
    link = await gateway.connect(site)
    link.say(array(*(line(seq) for seq in range(1, 151))))
    while (await link.hear_next(Ack)).seq < 150:
        pass
    link.say(array(*(line(seq) for seq in range(151, 251))))
    await link.served.wait()
    again = gateway.accept(site)
    again.say(site.hello())
    acked_seq = (await again.hear_next(Welcome)).acked_seq
    assert acked_seq >= 150
    again.say(array(*(line(seq) for seq in range(acked_seq + 1, acked_seq + 41))))
    await again.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.RATE_LIMITED] * 2


async def test_reports_count_a_fifth_of_a_frame_also_where_they_come_one_by_one(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, SessionRules(frames_per_s=4)), Site()
    link = await gateway.connect(site)
    for seq in range(1, 203):
        link.say(line(seq))
    while (await link.hear_next(Ack)).seq < 202:
        pass
    ending = gateway.session(site).ending
    for seq in range(203, 206):
        link.say(line(seq))
    await link.served.wait()
    assert ending is None
    assert gateway.metrics.ended_with == [CloseCode.RATE_LIMITED]


async def test_after_one_burst_a_node_that_behaves_is_as_welcome_as_before(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, FEW), Site()
    await flood(await gateway.connect(site), site, frames=300)
    await trio.sleep(1)
    link = await gateway.connect(site)
    link.say(array(*(snapshot(site, live_seq=seq) for seq in range(1, 12))))
    for live_seq in range(12, 600):
        await trio.sleep(0.06)
        link.say(snapshot(site, live_seq=live_seq))
        if live_seq % 100 == 0:
            link.say(Ping(id="still here"))
            await link.hear_next(Pong)
    await trio.testing.wait_all_tasks_blocked()
    (held,) = gateway.snapshots.of(site.install_id)
    assert held.order == (2, 599)
    assert gateway.session(site).ending is None


async def test_while_one_node_floods_another_is_answered_between_its_frames(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, loud = Gateway(nursery), Site(), Site()
    link, shouting = await gateway.connect(site), await gateway.connect(loud)
    burst = int(gateway.rules.frames_per_s * BURST_S)
    for live_seq in range(1, burst + 2):
        shouting.say(snapshot(loud, live_seq=live_seq))
    taken_meanwhile = []
    for _ in range(20):
        before = gateway.metrics.frames["in", "publish_snapshot"]
        link.say(Ping(id="and me?"))
        await link.hear_next(Pong)
        taken_meanwhile.append(gateway.metrics.frames["in", "publish_snapshot"] - before)
    assert max(taken_meanwhile) < 50
    await shouting.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.RATE_LIMITED]
    assert gateway.session(site).ending is None


async def test_answers_that_were_asked_for_cost_a_node_nothing_and_others_do(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery, FEW), Site()
    link = await gateway.connect(site)
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for _ in range(300):
        with trio.fail_after(5):
            async with trio.open_nursery() as asking:
                asking.start_soon(ask, gateway, site)
                request = await link.hear_next(DirectRequest)
                link.say(DirectResponseStart(id=request.id, content_type="text/plain", total_size=0))
                link.say(DirectResponseEnd(id=request.id, chunks=0, total_size=0, sha256=empty))
    assert gateway.session(site).ending is None
    assert gateway.call_outcomes == [("succeeded", "")] * 300
    for _ in range(300):
        link.say(DirectResponseEnd(id=uuid4(), chunks=0, total_size=0, sha256=empty))
    await link.served.wait()
    assert gateway.metrics.ended_with == [CloseCode.RATE_LIMITED]


async def ask(gateway: Gateway, site: Site) -> None:
    async with gateway.rpc.call(direct_order(site)) as answer:
        async for _ in answer:
            pass
