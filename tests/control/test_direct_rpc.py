"""Direct requests: matched, verified, in time, and honest about what became of them."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from skygw.control.direct_rpc import HELD_BYTES, REMEMBER_S, DirectOrder
from skygw.errors import (
    BadResponse,
    Busy,
    DeadlineExceeded,
    Draining,
    Forbidden,
    Hop,
    LinkLost,
    NodeFailed,
    NodeOffline,
    NodeRefused,
    Outcome,
    Reached,
    Retry,
)
from skygw.ids import CallId, RequestId
from skygw.nodes.session import SessionRules
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectCancel, DirectCredit, DirectRequest, EventToken
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import DirectResponseChunk, DirectResponseEnd, Ping
from tests.fakes.answers import chunk_of, end_of, error_of, start_of, whole_answer
from tests.fakes.rooms import Gateway, PlayedLink, Site, direct_order, fill_data_lane

Clock = trio.testing.MockClock
Script = Callable[[CallId], Sequence[Any]]


async def got(gateway: Gateway, order: DirectOrder) -> bytes:
    """The whole verified answer."""
    async with gateway.rpc.call(order) as answer:
        return b"".join([piece async for piece in answer])


async def answering(link: PlayedLink, script: Script) -> None:
    """Plays the node: answers every request by the script."""
    while True:
        request = await link.hear_next(DirectRequest)
        for message in script(request.id):
            link.say(message)


async def connected(nursery: trio.Nursery, rules: SessionRules | None = None) -> tuple[Gateway, Site, PlayedLink]:
    gateway, site = Gateway(nursery, rules), Site()
    return gateway, site, await gateway.connect(site)


def said(link: PlayedLink, kind: str) -> int:
    return sum(1 for message in link.heard_so_far() if isinstance(message, str) and f'"kind":"{kind}"' in message)


# What goes well.


async def test_an_answer_arrives_whole_and_nothing_stays_behind(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: whole_answer(it, b"one", b"", b"two"))
    order = direct_order(site)
    assert await got(gateway, order) == b"onetwo"
    assert gateway.call_outcomes == [(Outcome.SUCCEEDED, "")]
    assert gateway.rpc.in_flight == 0
    assert len(gateway.session(site).calls) == 0
    await trio.testing.wait_all_tasks_blocked()
    assert said(link, "direct_cancel") == 0


async def test_an_empty_answer_is_an_answer(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, whole_answer)
    assert await got(gateway, direct_order(site)) == b""


async def test_many_answers_in_any_order_find_their_callers(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    answers: dict[str, bytes] = {}

    async def ask(operation: str) -> None:
        answers[operation] = await got(gateway, direct_order(site, operation=operation))

    async with trio.open_nursery() as callers:
        for number in range(20):
            callers.start_soon(ask, f"op.{number}")
        requests = [await link.hear_next(DirectRequest) for _ in range(20)]
        for request in reversed(requests):
            link.say(start_of(request.id))
        for request in requests:
            link.say(chunk_of(request.id, 0, request.operation.encode()))
        for request in reversed(requests):
            link.say(end_of(request.id, request.operation.encode()))
    assert answers == {f"op.{number}": f"op.{number}".encode() for number in range(20)}
    assert len({request.id for request in requests}) == 20


async def test_chunks_may_come_as_text(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)

    def script(it: CallId) -> list[Frame | bytes]:
        text = DirectResponseChunk(id=it, seq=0, data=b64encode(b"text").decode())
        return [start_of(it), text, chunk_of(it, 1, b"binary"), end_of(it, b"text", b"binary")]

    nursery.start_soon(answering, link, script)
    assert await got(gateway, direct_order(site)) == b"textbinary"


async def test_the_node_is_told_what_remains_of_the_callers_time(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site = Gateway(nursery), Site()

    async def come_later() -> None:
        await trio.sleep(4)
        link = await gateway.connect(site)
        request = await link.hear_next(DirectRequest)
        assert request.deadline_ms == pytest.approx(6_000, abs=1)
        assert request.epoch == gateway.session(site).epoch
        for message in whole_answer(request.id, b"x"):
            link.say(message)

    async with trio.open_nursery() as other:
        other.start_soon(come_later)
        assert await got(gateway, direct_order(site, timeout_s=10, connect_wait_s=5)) == b"x"


# What the node says no to.


@pytest.mark.parametrize("code", ["invalid", "forbidden", "not_found", "conflict"])
async def test_a_nodes_no_before_the_start_is_a_refusal_in_its_own_words(
    autojump_clock: Clock, nursery: trio.Nursery, code: str
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: [error_of(it, code)])
    with pytest.raises(NodeRefused) as caught:
        await got(gateway, direct_order(site))
    assert caught.value.node_code == code
    assert caught.value.outcome is Outcome.REFUSED
    assert "The node's own words." in caught.value.message
    await trio.testing.wait_all_tasks_blocked()
    assert said(link, "direct_cancel") == 0
    assert gateway.call_outcomes == [(Outcome.REFUSED, "node_refused")]


@pytest.mark.parametrize(("code", "started"), [("internal", False), ("overheated", False), ("conflict", True)])
async def test_any_other_error_of_a_node_is_a_failure(
    autojump_clock: Clock, nursery: trio.Nursery, code: str, *, started: bool
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: [*([start_of(it)] if started else []), error_of(it, code)])
    with pytest.raises(NodeFailed) as caught:
        await got(gateway, direct_order(site))
    assert caught.value.outcome is Outcome.FAILED
    assert caught.value.reached is (Reached.RUNNING if started else Reached.WRITTEN)


async def test_a_node_that_notices_first_that_the_time_is_over_says_what_the_gateway_would(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    late = {"details": Opaque.of({"reason": "deadline_exceeded"})}
    nursery.start_soon(answering, link, lambda it: [error_of(it, "conflict").model_copy(update=late)])
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site))
    assert (caught.value.outcome, caught.value.hop) == (Outcome.UNKNOWN, Hop.NODE)


# Time.


async def test_a_silent_node_costs_exactly_the_callers_time_and_is_told(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site, timeout_s=7))
    assert trio.current_time() - began == pytest.approx(7)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.retry is Retry.QUERY_FIRST
    assert caught.value.reached is Reached.WRITTEN
    request = await link.hear_next(DirectRequest)
    assert (await link.hear_next(DirectCancel)).id == request.id


async def test_a_request_still_in_the_outbox_at_its_deadline_was_not_sent_and_never_will_be(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    link.stall()
    gateway.session(site).say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site, timeout_s=7))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert caught.value.retry is Retry.NOW
    assert caught.value.reached is Reached.RECEIVED
    link.flow()
    await trio.testing.wait_all_tasks_blocked()
    heard = link.heard_so_far()
    assert not any("direct_" in str(message) for message in heard)


async def test_a_request_half_written_at_its_deadline_is_unknown(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    link.stall()
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site, timeout_s=7))
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.reached is Reached.RECEIVED


async def test_the_deadline_holds_in_the_middle_of_an_answer_too(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: [start_of(it), chunk_of(it, 0, b"some")])
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site, timeout_s=7))
    assert trio.current_time() - began == pytest.approx(7)
    assert caught.value.reached is Reached.RUNNING


@pytest.mark.parametrize("while_at", ["the start", "a piece"])
async def test_the_deadline_ends_an_answer_whose_caller_is_elsewhere(
    autojump_clock: Clock, nursery: trio.Nursery, while_at: str
) -> None:
    gateway, site, link = await connected(nursery)
    order = direct_order(site, timeout_s=5)

    async def begin() -> None:
        request = await link.hear_next(DirectRequest)
        link.say(start_of(request.id))
        link.say(chunk_of(request.id, 0, b"x" * 50_000))

    nursery.start_soon(begin)
    began = trio.current_time()

    async def take_nothing() -> None:
        async with gateway.rpc.call(order) as answer:
            if while_at == "a piece":
                await anext(answer)
            await trio.sleep(400)

    with pytest.raises(DeadlineExceeded) as caught:
        await take_nothing()
    assert trio.current_time() - began == pytest.approx(5)
    assert (caught.value.outcome, caught.value.reached) == (Outcome.UNKNOWN, Reached.RUNNING)
    assert len(gateway.session(site).calls) == 0
    await link.hear_next(DirectCancel)
    assert gateway.call_outcomes == [(Outcome.UNKNOWN, "deadline_exceeded")]


async def test_an_answer_that_was_verified_has_succeeded_though_its_caller_takes_the_end_of_it_too_late(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: whole_answer(it, b"whole"))

    async def take_the_end_too_late() -> None:
        async with gateway.rpc.call(direct_order(site, timeout_s=5)) as answer:
            assert await anext(answer) == b"whole"
            await trio.sleep(400)

    with pytest.raises(DeadlineExceeded):
        await take_the_end_too_late()
    assert gateway.call_outcomes == [(Outcome.SUCCEEDED, "")]
    await trio.testing.wait_all_tasks_blocked()
    assert said(link, "direct_cancel") == 0


async def test_an_order_without_time_is_not_sent(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    with pytest.raises(DeadlineExceeded) as caught:
        await got(gateway, direct_order(site, timeout_s=0))
    assert caught.value.outcome is Outcome.NOT_SENT
    assert link.heard_so_far() == []


# Callers that leave.


@pytest.mark.parametrize("leaving", ["cancelled before the start", "cancelled in the middle", "left early"])
async def test_a_caller_that_leaves_cancels_at_the_node_and_what_comes_late_is_counted(
    autojump_clock: Clock, nursery: trio.Nursery, leaving: str
) -> None:
    gateway, site, link = await connected(nursery)
    order = direct_order(site)
    heard: list[DirectRequest] = []

    async def ask() -> None:
        async with gateway.rpc.call(order) as answer:
            if leaving == "left early":
                return
            async for _ in answer:
                pass

    async with trio.open_nursery() as caller:
        caller.start_soon(ask)
        heard.append(await link.hear_next(DirectRequest))
        if leaving != "cancelled before the start":
            link.say(start_of(heard[0].id))
            await trio.testing.wait_all_tasks_blocked()
        caller.cancel_scope.cancel()
    assert (await link.hear_next(DirectCancel)).id == heard[0].id
    record = gateway.rpc.log.find(order.service, order.request_id)
    assert record is not None
    assert (record.outcome, record.reason) == (Outcome.UNKNOWN, "caller_gone")
    assert gateway.call_outcomes == [(Outcome.UNKNOWN, "caller_gone")]
    link.say(chunk_of(heard[0].id, 0, b"late"))
    link.say(end_of(heard[0].id, b"late"))
    await trio.testing.wait_all_tasks_blocked()
    assert gateway.metrics.late_replies == 2
    assert gateway.session(site).ending is None


async def test_a_caller_that_leaves_before_its_request_was_written_takes_it_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    link.stall()
    gateway.session(site).say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(1):
        await got(gateway, direct_order(site))
    assert gateway.call_outcomes == [(Outcome.NOT_SENT, "caller_gone")]
    link.flow()
    await trio.testing.wait_all_tasks_blocked()
    assert not any("direct_" in str(message) for message in link.heard_so_far())


async def test_a_caller_that_leaves_after_the_nodes_end_cancels_nothing_and_claims_nothing(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: whole_answer(it, b"unread"))
    order = direct_order(site)
    async with gateway.rpc.call(order):
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert said(link, "direct_cancel") == 0
    assert gateway.call_outcomes == [(Outcome.UNKNOWN, "caller_gone")]


async def test_a_caller_that_leaves_without_asking_what_became_of_a_lost_answer_has_not_succeeded(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, lambda it: [start_of(it), chunk_of(it, 5, b"")])
    async with gateway.rpc.call(direct_order(site)):
        await trio.testing.wait_all_tasks_blocked()
    assert gateway.call_outcomes == [(Outcome.UNKNOWN, "caller_gone")]


# Credit.


async def test_credit_is_granted_as_the_caller_consumes(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery, SessionRules(call_credit=100))
    taken: list[bytes] = []
    take = trio.Event()

    async def ask() -> None:
        async with gateway.rpc.call(direct_order(site)) as answer:
            await take.wait()
            taken.extend([piece async for piece in answer])

    async with trio.open_nursery() as caller:
        caller.start_soon(ask)
        request = await link.hear_next(DirectRequest)
        assert request.credit == 100
        link.say(start_of(request.id))
        link.say(chunk_of(request.id, 0, b"a" * 60))
        link.say(chunk_of(request.id, 1, b"b" * 40))
        await trio.testing.wait_all_tasks_blocked()
        assert said(link, "direct_credit") == 0
        take.set()
        credit = await link.hear_next(DirectCredit)
        assert (credit.id, credit.bytes) == (request.id, 100)
        link.say(chunk_of(request.id, 2, b"c" * 100))
        link.say(end_of(request.id, b"a" * 60, b"b" * 40, b"c" * 100))
    assert b"".join(taken) == b"a" * 60 + b"b" * 40 + b"c" * 100


async def sending_as_allowed(link: PlayedLink, payload: bytes, *, chunk: int, sent: list[int]) -> None:
    """Plays a node that sends whenever its credit has room for a whole chunk. `sent` is what it had sent each time."""
    request = await link.hear_next(DirectRequest)
    left = request.credit
    link.say(start_of(request.id))
    pieces = [payload[at : at + chunk] for at in range(0, len(payload), chunk)]
    for seq, piece in enumerate(pieces):
        while left < len(piece):
            left += (await link.hear_next(DirectCredit)).bytes
        left -= len(piece)
        link.say(chunk_of(request.id, seq, piece))
        sent.append(sent[-1] + len(piece))
    link.say(end_of(request.id, *pieces))


@pytest.mark.parametrize(
    ("credit", "chunk", "size"),
    [
        (256 * 1024, 256 * 1024, 1024 * 1024),
        (256 * 1024, 65_537, 1024 * 1024),
        (256 * 1024, 4_097, 1024 * 1024),
        (10_000, 10_000, 100_001),
        (5_000, 1, 6_000),
        (6, 6, 99),
        (1, 1, 99),
    ],
)
async def test_no_size_of_credit_or_chunk_stops_an_answer(
    autojump_clock: Clock, nursery: trio.Nursery, credit: int, chunk: int, size: int
) -> None:
    gateway, site, link = await connected(nursery, SessionRules(call_credit=credit))
    payload = bytes(range(251)) * (size // 251) + b"!" * (size % 251)
    nursery.start_soon(partial(sending_as_allowed, link, payload, chunk=chunk, sent=[0]))
    assert await got(gateway, direct_order(site)) == payload


@pytest.mark.parametrize("chunk", [256 * 1024, 50_001])
async def test_what_a_node_has_under_way_to_a_caller_who_takes_nothing_is_within_its_credit(
    autojump_clock: Clock, nursery: trio.Nursery, chunk: int
) -> None:
    credit = 1024 * 1024
    gateway, site, link = await connected(nursery, SessionRules(call_credit=credit))
    sent = [0]
    nursery.start_soon(partial(sending_as_allowed, link, b"x" * 5 * credit, chunk=chunk, sent=sent))
    under_way: list[int] = []
    async with gateway.rpc.call(direct_order(site, timeout_s=600)) as answer:
        taken = 0
        async for piece in answer:
            await trio.sleep(1)  # the node sends what it may
            under_way.append(sent[-1] - taken)
            taken += len(piece)
    assert taken == 5 * credit
    assert max(under_way) <= credit + 2 * HELD_BYTES


async def test_a_slow_caller_stalls_neither_the_socket_nor_others(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery, SessionRules(call_credit=100))

    async def ask_and_sleep() -> None:
        async with gateway.rpc.call(direct_order(site, operation="slow")):
            await trio.sleep_forever()

    async with trio.open_nursery() as callers:
        callers.start_soon(ask_and_sleep)
        slow = await link.hear_next(DirectRequest)
        link.say(start_of(slow.id))
        link.say(chunk_of(slow.id, 0, b"x" * 100))
        nursery.start_soon(answering, link, lambda it: whole_answer(it, b"quick"))
        began = trio.current_time()
        assert await got(gateway, direct_order(site, operation="quick")) == b"quick"
        assert trio.current_time() == began
        callers.cancel_scope.cancel()


async def test_a_node_that_sends_more_than_its_credit_has_answered_badly(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery, SessionRules(call_credit=100))
    nursery.start_soon(
        answering, link, lambda it: [start_of(it), chunk_of(it, 0, b"a" * 60), chunk_of(it, 1, b"b" * 41)]
    )
    async with gateway.rpc.call(direct_order(site)) as answer:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BadResponse):
            await anext(answer)
    assert gateway.session(site).ending is None


# Answers that do not hold together.


def wrong(it: CallId, **changed: object) -> DirectResponseEnd:
    good = end_of(it, b"first", b"last").model_dump()
    return DirectResponseEnd(**{**good, **changed})


BAD_ANSWERS: dict[str, Script] = {
    "a chunk before the start": lambda it: [chunk_of(it, 0, b"first")],
    "an end before the start": lambda it: [end_of(it)],
    "two starts": lambda it: [start_of(it), start_of(it)],
    "chunks in the wrong order": lambda it: [start_of(it), chunk_of(it, 1, b"last"), chunk_of(it, 0, b"first")],
    "a chunk twice": lambda it: [start_of(it), chunk_of(it, 0, b"first"), chunk_of(it, 0, b"first")],
    "a chunk missing": lambda it: [start_of(it), chunk_of(it, 0, b"first"), wrong(it)],
    "a wrong count": lambda it: [
        start_of(it), chunk_of(it, 0, b"first"), chunk_of(it, 1, b"last"), wrong(it, chunks=3),
    ],
    "a wrong size in the end": lambda it: [
        start_of(it), chunk_of(it, 0, b"first"), chunk_of(it, 1, b"last"), wrong(it, total_size=10),
    ],
    "another size than announced": lambda it: [
        start_of(it, total_size=10), chunk_of(it, 0, b"first"), chunk_of(it, 1, b"last"), wrong(it),
    ],
    "a wrong digest": lambda it: [
        start_of(it), chunk_of(it, 0, b"first"), chunk_of(it, 1, b"last"),
        wrong(it, sha256=hashlib.sha256(b"other").hexdigest()),
    ],
    "text that is not base64": lambda it: [start_of(it), DirectResponseChunk(id=it, seq=0, data="*")],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_does_not_hold_together_is_bad_and_its_last_piece_is_never_given_out(
    autojump_clock: Clock, nursery: trio.Nursery, name: str
) -> None:
    gateway, site, link = await connected(nursery)
    given: list[bytes] = []

    async def slowly() -> None:
        request = await link.hear_next(DirectRequest)
        for message in BAD_ANSWERS[name](request.id):
            link.say(message)
            await trio.sleep(1)  # so that pieces come one by one

    async def take() -> None:
        async with gateway.rpc.call(direct_order(site)) as answer:
            async for piece in answer:
                given.append(piece)  # noqa: PERF401 - what was given out before the error counts

    nursery.start_soon(slowly)
    with pytest.raises(BadResponse) as caught:
        await take()
    assert caught.value.outcome is Outcome.UNKNOWN
    assert b"last" not in given
    assert gateway.call_outcomes == [(Outcome.UNKNOWN, "bad_response")]
    await trio.sleep(5)
    assert gateway.session(site).ending is None


async def test_a_node_cannot_send_more_than_it_announced(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    given: list[bytes] = []

    async def slowly() -> None:
        request = await link.hear_next(DirectRequest)
        link.say(start_of(request.id, total_size=8))
        for seq in range(4):
            await trio.sleep(1)
            link.say(chunk_of(request.id, seq, b"12345"))

    nursery.start_soon(slowly)

    async def take() -> None:
        async with gateway.rpc.call(direct_order(site)) as answer:
            async for piece in answer:
                given.append(piece)  # noqa: PERF401 - what was given out before the error counts

    with pytest.raises(BadResponse):
        await take()
    assert sum(map(len, given)) <= 8


# The link, and what the node may have at once.


async def test_a_link_lost_in_the_middle_is_told_as_unknown(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)

    async def cut() -> None:
        request = await link.hear_next(DirectRequest)
        link.say(start_of(request.id))
        await trio.sleep(1)
        link.hang_up()

    nursery.start_soon(cut)
    with pytest.raises(LinkLost) as caught:
        await got(gateway, direct_order(site))
    assert (caught.value.outcome, caught.value.reached) == (Outcome.UNKNOWN, Reached.RUNNING)
    assert caught.value.retry is Retry.QUERY_FIRST


async def test_a_link_lost_before_the_request_was_written_is_told_as_not_sent(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    link.stall()
    gateway.session(site).say(Ping(id="stuck"))
    await trio.testing.wait_all_tasks_blocked()

    async def cut() -> None:
        await trio.sleep(1)
        link.hang_up()

    nursery.start_soon(cut)
    with pytest.raises(LinkLost) as caught:
        await got(gateway, direct_order(site))
    assert (caught.value.outcome, caught.value.retry) == (Outcome.NOT_SENT, Retry.NOW)


async def test_more_calls_than_a_node_may_have_are_busy_and_leave_the_others_alone(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery, SessionRules(max_calls=2))
    async with trio.open_nursery() as callers:
        for service in ("one", "another"):
            callers.start_soon(got, gateway, direct_order(site, service=service))
        requests = [await link.hear_next(DirectRequest) for _ in range(2)]
        with pytest.raises(Busy) as caught:
            await got(gateway, direct_order(site))
        assert (caught.value.outcome, caught.value.retry_after_s) == (Outcome.NOT_SENT, 1.0)
        for request in requests:
            for message in whole_answer(request.id):
                link.say(message)
    nursery.start_soon(answering, link, whole_answer)
    assert await got(gateway, direct_order(site)) == b""


async def test_a_node_that_is_not_connected_is_offline_at_once_or_after_the_wait_asked_for(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    began = trio.current_time()
    with pytest.raises(NodeOffline):
        await got(gateway, direct_order(site))
    assert trio.current_time() == began
    with pytest.raises(NodeOffline):
        await got(gateway, direct_order(site, timeout_s=30, connect_wait_s=4))
    assert trio.current_time() - began == pytest.approx(4)
    with pytest.raises(NodeOffline):
        await got(gateway, direct_order(site, timeout_s=2, connect_wait_s=4))
    assert trio.current_time() - began == pytest.approx(6)
    assert {outcome for outcome, _ in gateway.call_outcomes} == {Outcome.NOT_SENT}


async def test_a_wait_for_a_node_rides_out_a_session_that_is_ending(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, old = await connected(nursery)
    old.stall()
    gateway.session(site).say(Ping())
    gateway.session(site).end(CloseCode.TOKEN_EXPIRED, "expired")

    async def come_again() -> None:
        await trio.sleep(3)
        await answering(await gateway.connect(site), lambda it: whole_answer(it, b"again"))

    nursery.start_soon(come_again)
    assert await got(gateway, direct_order(site, connect_wait_s=10)) == b"again"


async def test_a_draining_gateway_takes_no_new_calls_and_finishes_those_it_has(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery)
    async with trio.open_nursery() as callers:
        callers.start_soon(got, gateway, direct_order(site))
        request = await link.hear_next(DirectRequest)
        gateway.rpc.drain()
        with pytest.raises(Draining) as caught:
            await got(gateway, direct_order(site))
        assert caught.value.outcome is Outcome.NOT_SENT
        for message in whole_answer(request.id):
            link.say(message)
    assert [reason for _, reason in gateway.call_outcomes] == ["draining", ""]


async def test_in_the_grace_time_of_a_token_direct_requests_are_refused(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site = Gateway(nursery), Site()
    link = await gateway.connect(site, token_lasts_s=5)
    gateway.tokens.reachable = False
    await link.hear_next(EventToken)
    with pytest.raises(Forbidden) as caught:
        await got(gateway, direct_order(site))
    assert caught.value.outcome is Outcome.NOT_SENT


async def test_a_data_lane_that_is_full_is_busy(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    link.stall()
    fill_data_lane(gateway.session(site))
    with pytest.raises(Busy) as caught:
        await got(gateway, direct_order(site, operation="x" * 100))
    assert caught.value.outcome is Outcome.NOT_SENT


# What is remembered.


async def test_what_became_of_a_call_is_known_for_a_minute_to_its_own_service_only(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, site, link = await connected(nursery, SessionRules(dead_after_s=inf))
    nursery.start_soon(answering, link, lambda it: [error_of(it, "not_found")])
    order = direct_order(site, request_id="mine")
    with pytest.raises(NodeRefused):
        await got(gateway, order)
    record = gateway.rpc.log.find("tests", RequestId("mine"))
    assert record is not None
    assert (record.outcome, record.reason, record.reached) == (Outcome.REFUSED, "node_refused", Reached.WRITTEN)
    assert record.epoch == gateway.session(site).epoch
    assert gateway.rpc.log.find("others", RequestId("mine")) is None
    await trio.sleep(REMEMBER_S - 1)
    assert gateway.rpc.log.find("tests", RequestId("mine")) is record
    await trio.sleep(2)
    assert gateway.rpc.log.find("tests", RequestId("mine")) is None


async def test_a_call_that_runs_is_in_progress(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, site, link = await connected(nursery)
    async with trio.open_nursery() as caller:
        caller.start_soon(got, gateway, direct_order(site, request_id="mine"))
        await link.hear_next(DirectRequest)
        record = gateway.rpc.log.find("tests", RequestId("mine"))
        assert record is not None
        assert record.outcome is Outcome.IN_PROGRESS
        caller.cancel_scope.cancel()


@pytest.mark.parametrize("traceparent", ["nonsense", "x" * 5_000, ""])
async def test_a_trace_context_that_is_none_does_not_stop_a_request(
    autojump_clock: Clock, nursery: trio.Nursery, traceparent: str
) -> None:
    gateway, site, link = await connected(nursery)
    nursery.start_soon(answering, link, whole_answer)
    assert await got(gateway, direct_order(site, traceparent=traceparent)) == b""
