"""Commands of a hub service: what is asked, what comes back as which type, and what a lost answer leads to."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from skygw.client.blocking import BlockingCaller
from skygw.client.caller import Caller, CancelReceipt, ReceiptWord
from skygw.client.command_calls import COMMANDS, PAUSES_S, REPEATED_WITHIN_S, Tries, command_call
from skygw.errors import Draining, IllegalTransition, LeaseHeld, LinkLost, NodeOffline, Outcome, Retry
from skygw.ids import CommandId, LeaseUid
from skygw.protocol.gateway_frames import CancelMode
from tests.fakes.canned_http import CannedHttp, canned_http

TELESCOPE = UUID(int=42)
PARK = {"command_type": "mount.park"}
LOST = b""
"""An answer that never comes: the connection ends."""


@pytest.fixture
async def http() -> AsyncIterator[CannedHttp]:
    async with canned_http() as server:
        yield server


def lost(outcome: Outcome = Outcome.UNKNOWN) -> LinkLost:
    return LinkLost("gone", outcome=outcome)


async def test_a_command_is_sent_with_what_was_given_and_nothing_else(http: CannedHttp) -> None:
    short, whole = CommandId(uuid4()), CommandId(uuid4())
    secret = LeaseUid(uuid4())
    http.answer(202, {"state": "accepted"})
    http.answer(202, {"state": "accepted"})
    async with Caller(http.base_url, "t") as caller:
        record = await caller.command(PARK, command_id=short, telescope_uid=TELESCOPE)
        await caller.command(
            PARK,
            command_id=whole,
            device_uid=TELESCOPE,
            timeout_s=60.0,
            wait_s=1.5,
            lease_uid=secret,
            origin={"program": "planner"},
            actor={"uid": "7", "kind": "user"},
            graph_revision=3,
            on_caller_gone="cancel",
            traceparent="00-1-2-01",
        )

    assert record == {"state": "accepted"}
    assert http.bodies == [
        {"telescopeUid": str(TELESCOPE), "commandId": str(short), "command": PARK},
        {
            "deviceUid": str(TELESCOPE),
            "commandId": str(whole),
            "command": PARK,
            "timeoutS": 60.0,
            "waitS": 1.5,
            "leaseUid": str(secret),
            "origin": {"program": "planner"},
            "actor": {"uid": "7", "kind": "user"},
            "graphRevision": 3,
            "onCallerGone": "cancel",
        },
    ]
    assert "traceparent: 00-1-2-01" in http.heads[1].lower()
    assert "traceparent" not in http.heads[0].lower()


async def test_a_lost_answer_is_asked_for_again_with_the_same_id_and_the_time_that_is_left(http: CannedHttp) -> None:
    http.answers += [LOST]
    http.answer(200, {"state": "completed"})
    async with Caller(http.base_url, "t") as caller:
        record = await caller.command(
            PARK, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE, timeout_s=60.0, wait_s=30.0
        )

    first, second = http.bodies
    assert record == {"state": "completed"}
    assert 0 < second.pop("timeoutS") < first.pop("timeoutS") == 60.0
    assert 0 < second.pop("waitS") < first.pop("waitS") == 30.0
    assert first == second


async def test_a_gateway_that_was_never_reached_leaves_the_command_not_sent() -> None:
    async with Caller("http://127.0.0.1:1", "t") as caller:
        with pytest.raises(LinkLost) as caught:
            await caller.command(PARK, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE, timeout_s=0.2)

    assert caught.value.outcome is Outcome.NOT_SENT


async def test_what_a_repeat_was_refused_says_nothing_of_the_try_before(http: CannedHttp) -> None:
    refusal = {"detail": "Drains.", "code": "draining", "outcome": "not_sent", "retry": "after"}
    http.answers += [LOST]
    http.answer(503, refusal)
    http.answer(503, refusal)
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(Draining) as after_another:
            await caller.command(PARK, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE)
        with pytest.raises(Draining) as at_first:
            await caller.command(PARK, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE)

    assert (after_another.value.outcome, after_another.value.retry) == (Outcome.UNKNOWN, Retry.QUERY_FIRST)
    assert at_first.value.outcome is Outcome.NOT_SENT


@given(
    timeout_s=st.none() | st.floats(0.01, 100),
    took_s=st.lists(st.floats(0, 50), min_size=10, max_size=10),
    known=st.lists(st.sampled_from([Outcome.UNKNOWN, Outcome.NOT_SENT]), min_size=10, max_size=10),
)
@settings(deadline=timedelta(seconds=5))
def test_nothing_that_moves_is_sent_again_when_its_time_is_over(
    timeout_s: float | None, took_s: list[float], known: list[Outcome]
) -> None:
    now, sent = 100.0, 1
    call = command_call(PARK, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE, timeout_s=timeout_s)
    tries = Tries(call, now=now)
    deadline = now + (timeout_s or REPEATED_WITHIN_S)
    left: list[tuple[float, float]] = []
    ended: LinkLost | None = None
    for lasted_s, outcome in zip(took_s, known, strict=True):
        now += lasted_s
        try:
            pause_s, again = tries.after(lost(outcome), now=now)
        except LinkLost as error:
            ended = error
            break
        now += pause_s
        sent += 1
        left.append((now, (again.body or {}).get("timeoutS", deadline - now)))

    assert sent <= 1 + len(PAUSES_S)
    assert all(at < deadline and at + rest <= deadline + 1e-6 for at, rest in left)
    assert ended is not None
    assert (ended.outcome is Outcome.UNKNOWN) == (Outcome.UNKNOWN in known[:sent])


def test_it_is_never_too_late_to_repeat_a_stop() -> None:
    stop = {"command_type": "mount.stop"}
    call = command_call(stop, command_id=CommandId(uuid4()), telescope_uid=TELESCOPE, timeout_s=1.0)
    _, again = Tries(call, now=0.0).after(lost(), now=50.0)

    assert (again.path, again.body) == (COMMANDS, call.body)


async def test_a_cancel_is_answered_by_a_receipt_and_repeated_where_that_is_lost(http: CannedHttp) -> None:
    command_id = CommandId(uuid4())
    proof = {"devices": [{"device_uid": "m", "state": "idle", "basis": "read_back"}]}
    receipt = {"commandId": str(command_id), "receipt": "interrupted", "state": "canceled", "proof": proof}
    http.answers += [LOST]
    http.answer(200, receipt)
    http.answer(200, {**receipt, "receipt": "taken_by_the_wind", "proof": None})
    async with Caller(http.base_url, "t") as caller:
        found = await caller.cancel_command(command_id, mode=CancelMode.IMMEDIATE, grace_s=2.0, wait_s=5.0)
        newer = await caller.cancel_command(command_id)

    assert found == CancelReceipt(command_id, ReceiptWord.INTERRUPTED, "canceled", proof)
    assert (newer.receipt, newer.proof) == (ReceiptWord.UNKNOWN, None)
    assert http.heads[0].startswith(f"POST {COMMANDS}/{command_id}/cancel ")
    assert [body.get("mode") for body in http.bodies] == ["immediate", "immediate", "graceful"]
    assert (http.bodies[0]["graceS"], http.bodies[0]["waitS"]) == (2.0, 5.0)


async def test_a_dry_run_brings_back_each_refusal_as_its_type(http: CannedHttp) -> None:
    command_id = CommandId(uuid4())
    held = {"detail": "Anna has control.", "code": "lease_held", "outcome": "not_sent", "retry": "after"}
    away = {"detail": "It is not connected.", "code": "node_offline", "outcome": "not_sent", "retry": "after"}
    answer = {"commandId": str(command_id), "valid": False, "duplicate": True}
    http.answer(200, {**answer, "refusals": [{**held, "details": {"until": "noon"}}, away]})
    async with Caller(http.base_url, "t") as caller:
        found = await caller.validate_command(PARK, command_id=command_id, telescope_uid=TELESCOPE)
        with pytest.raises(ValueError, match="no dry run of a stop"):
            await caller.validate_command({"command_type": "telescope.safe_shutdown"}, telescope_uid=TELESCOPE)

    assert http.bodies[0]["validateOnly"] is True
    assert (found.command_id, found.valid, found.duplicate) == (command_id, False, True)
    assert [type(refusal) for refusal in found.refusals] == [LeaseHeld, NodeOffline]
    assert (str(found.refusals[0]), found.refusals[0].details["until"]) == ("Anna has control.", "noon")
    assert len(http.bodies) == 1


async def test_records_are_asked_for_and_what_is_unknown_is_resolved(http: CannedHttp) -> None:
    command_id = CommandId(uuid4())
    http.answer(200, {"state": "unknown"})
    http.answer(200, {"items": []})
    http.answer(200, {"state": "failed"})
    http.answer(409, {"detail": "It has ended.", "code": "illegal_transition", "outcome": "not_sent"})
    async with Caller(http.base_url, "t") as caller:
        record = await caller.command_record(command_id)
        page = await caller.commands(page=2, size=10, state="unknown", node="North")
        resolved = await caller.resolve_command(command_id, Outcome.FAILED, reason="disk lost")
        with pytest.raises(IllegalTransition):
            await caller.resolve_command(command_id, Outcome.SUCCEEDED, reason="seen", actor={"uid": "7", "kind": "u"})

    assert (record, page, resolved) == ({"state": "unknown"}, {"items": []}, {"state": "failed"})
    assert [head.split(" HTTP")[0] for head in http.heads] == [
        f"GET {COMMANDS}/{command_id}",
        f"GET {COMMANDS}?page=2&size=10&state=unknown&installId=North",
        f"POST {COMMANDS}/{command_id}/resolve",
        f"POST {COMMANDS}/{command_id}/resolve",
    ]
    assert http.bodies[2:] == [
        {"outcome": "failed", "reason": "disk lost"},
        {"outcome": "succeeded", "reason": "seen", "actor": {"uid": "7", "kind": "u"}},
    ]


async def test_the_blocking_caller_commands_alike(http: CannedHttp) -> None:
    command_id = CommandId(uuid4())
    http.answers += [LOST]
    http.answer(202, {"state": "accepted"})
    http.answer(200, {"commandId": str(command_id), "receipt": "already_ended", "state": "completed", "proof": None})
    http.answer(200, {"commandId": str(command_id), "valid": True, "duplicate": False, "refusals": []})
    http.answer(200, {"items": []})
    http.answer(200, {"state": "failed"})
    http.answers += [LOST]
    http.answer(503, {"code": "draining", "outcome": "not_sent", "detail": "Drains."})
    found: list[Any] = []

    def work() -> None:
        with BlockingCaller(http.base_url, "t") as caller:
            ask = partial(caller.command, PARK, command_id=command_id, telescope_uid=TELESCOPE, timeout_s=9.0)
            found.append(ask(on_caller_gone="cancel", wait_s=3.0))
            found.append(caller.cancel_command(command_id).receipt)
            found.append(caller.validate_command(PARK, telescope_uid=TELESCOPE).valid)
            found.append(caller.commands(state="running"))
            found.append(caller.resolve_command(command_id, Outcome.FAILED, reason="disk lost"))
            with pytest.raises(Draining) as refused:
                ask()
            found.append(refused.value.outcome)

    await trio.to_thread.run_sync(work)

    assert found == [
        {"state": "accepted"},
        ReceiptWord.ALREADY_ENDED,
        True,
        {"items": []},
        {"state": "failed"},
        Outcome.UNKNOWN,
    ]
    assert http.bodies[0]["commandId"] == http.bodies[1]["commandId"]
    assert http.bodies[1]["timeoutS"] < 9.0
    assert http.answers == []
