"""Durable reports: committed in order before they are acknowledged, and nothing acknowledged is lost."""

from collections.abc import Sequence
from typing import cast
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.ids import CommandId, InstallId, OutboxUid
from skygw.nodes.ports import DurableReport
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import encode
from skygw.protocol.gateway_frames import Ack, Nack, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE, MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES
from skygw.protocol.node_frames import CommandStatus, Error, PublishCommandResult, PublishLog
from tests.fakes.moments import NOW
from tests.fakes.ports import MemoryReports
from tests.fakes.rooms import Gateway, Site

Clock = trio.testing.MockClock


def line(seq: int, text: str = "") -> PublishLog:
    return PublishLog(seq=seq, data=Opaque.of({"text": text}), observed_at=NOW)


async def test_a_report_is_committed_byte_for_byte_and_then_acknowledged(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    text = '{ "kind" : "publish_log", "seq":1, "data":{"a": 1.50},"observed_at":"2026-07-01T03:00:00Z" }'
    link.say(text)
    ack = await link.hear_next(Ack)
    assert (ack.seq, ack.outbox_uid) == (1, site.outbox_uid)
    assert [row.text for row in gateway.reports.rows[site.outbox_uid]] == [text]


async def test_a_burst_is_acknowledged_to_its_end_in_few_transactions(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say("[" + ",".join(encode(line(seq)) for seq in range(1, MAX_FRAMES_PER_MESSAGE + 1)) + "]")
    assert (await link.hear_next(Ack)).seq == MAX_FRAMES_PER_MESSAGE
    assert gateway.reports.seqs(site.outbox_uid) == list(range(1, MAX_FRAMES_PER_MESSAGE + 1))
    assert gateway.reports.commits == 1


async def test_a_bad_publish_is_nacked_in_its_place_and_the_cursor_passes_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(f'[{encode(line(1))},{{"kind":"publish_log","seq":2}},{encode(line(3))}]')
    nack = await link.hear_next(Nack)
    ack = await link.hear_next(Ack)
    assert nack.seq == 2
    assert nack.outbox_uid == site.outbox_uid
    assert ack.seq == 3
    assert [(row.seq, row.nacked is None) for row in gateway.reports.rows[site.outbox_uid]] == [
        (1, True),
        (2, False),
        (3, True),
    ]
    assert gateway.metrics.nacks == {"publish_log": 1}


async def test_a_nack_waits_for_the_database_like_an_ack(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.database.away = True
    link.say('{"kind":"publish_log","seq":1}')
    await trio.sleep(5)
    assert link.heard_so_far() == []
    gateway.database.away = False
    assert (await link.hear_next(Nack)).seq == 1


async def test_a_hole_is_refused_with_what_was_due_and_nothing_behind_it_is_taken(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(line(1))
    await link.hear_next(Ack)
    link.say(line(3))
    error = await link.hear_next(Error)
    assert error.details is not None
    assert cast("dict[str, object]", error.details.value)["expected_seq"] == 2
    link.say(line(2))
    link.say(line(3))
    while (await link.hear_next(Ack)).seq < 3:
        pass
    assert gateway.reports.seqs(site.outbox_uid) == [1, 2, 3]


async def test_a_repeated_report_is_acknowledged_again_and_committed_once(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(line(1))
    assert (await link.hear_next(Ack)).seq == 1
    link.say(line(1))
    assert (await link.hear_next(Ack)).seq == 1
    assert gateway.reports.seqs(site.outbox_uid) == [1]
    assert gateway.reports.commits == 1


async def test_while_the_database_is_away_nothing_is_acknowledged_and_everything_is_when_it_is_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.database.away = True
    for seq in range(1, 6):
        link.say(line(seq))
    link.say(line(3))
    await trio.sleep(8)
    assert link.heard_so_far() == []
    assert gateway.session(site).unacked == 5
    gateway.database.away = False
    while (await link.hear_next(Ack)).seq < 5:
        pass
    assert gateway.reports.seqs(site.outbox_uid) == [1, 2, 3, 4, 5]
    assert gateway.session(site).unacked == 0


async def test_a_node_that_comes_back_is_told_what_is_committed_and_what_it_repeats_is_there_once(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    link.say(line(1))
    await link.hear_next(Ack)
    gateway.database.slow_s = 2.0
    link.say(line(2))
    await trio.sleep(1)
    link.hang_up()  # in the middle of the commit
    await link.served.wait()
    gateway.database.slow_s = 0.0
    again = gateway.accept(site)
    again.say(site.hello())
    welcome = await again.hear_next(Welcome)
    assert welcome.acked_seq == 1
    again.say(line(2))
    assert (await again.hear_next(Ack)).seq == 2
    assert gateway.reports.seqs(site.outbox_uid) == [1, 2]


async def test_as_many_as_may_be_unacknowledged_are_taken_and_one_more_ends_the_socket(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.database.away = True
    for seq in range(1, MAX_UNACKED_FRAMES + 1):
        link.say(line(seq))
    await trio.sleep(1)
    assert gateway.session(site).unacked == MAX_UNACKED_FRAMES
    assert gateway.session(site).ending is None
    link.say(line(MAX_UNACKED_FRAMES + 1))
    await link.served.wait()
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.RATE_LIMITED


async def test_big_reports_are_bounded_by_their_bytes(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site)
    gateway.database.away = True
    size = 60_000
    for seq in range(1, MAX_UNACKED_BYTES // size + 2):
        link.say(line(seq, "x" * size))
    await link.served.wait()
    assert link.closed_with is not None
    assert link.closed_with[0] == CloseCode.RATE_LIMITED


async def test_a_result_is_told_on_when_it_is_committed_and_acknowledged(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, site = Gateway(nursery), Site()
    order: list[str] = []
    monkeypatch.setattr(gateway.commands, "result_arrived", lambda *_: order.append("arrived"))
    monkeypatch.setattr(gateway.commands, "result_committed", lambda *_: order.append("committed"))
    store = gateway.reports.commit

    async def commit(install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        cursor = await store(install_id, outbox_uid, reports)
        order.append("stored")
        return cursor

    monkeypatch.setattr(MemoryReports, "commit", lambda _, *arguments: commit(*arguments))
    link = await gateway.connect(site)
    link.say(
        PublishCommandResult(seq=1, command_id=CommandId(uuid4()), status=CommandStatus.COMPLETED, observed_at=NOW)
    )
    await link.hear_next(Ack)
    assert order == ["arrived", "stored", "committed"]
