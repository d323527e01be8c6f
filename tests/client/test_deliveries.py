"""Reports about tasks reach the hub: once in effect, in order per task, whatever line and hub do meanwhile."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from skygw.errors import IdReused, Invalid
from skygw.ids import TaskUid
from tests.client.owing import PATIENCE_S, done, make_config, owing
from tests.fakes.hub import Answer, Asked, Cut, FakeHub, fake_hub, refusal

TASK, OTHER = TaskUid(UUID(int=7)), TaskUid(UUID(int=8))


def progresses(hub: FakeHub, task: TaskUid) -> list[float]:
    return [body["progress"] for of, kind, body in hub.effects if of == str(task) and kind == "progress"]


async def test_reports_of_a_task_arrive_in_the_order_in_which_they_were_kept(tmp_path: Path) -> None:
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        for step in range(5):
            await owed.tasks.progress(TASK, phase="exposing", progress=step / 5)
        await owed.tasks.results(TASK, {UUID(int=1): [UUID(int=2)]})
        await owed.tasks.complete(TASK, status="completed", assets=[UUID(int=2)], reschedulable=False)
        await done(owed.work)

    assert hub.kinds(TASK) == ["progress"] * 5 + ["results", "complete"]
    assert progresses(hub, TASK) == [0.0, 0.2, 0.4, 0.6, 0.8]
    ended = hub.effects[-1][2]
    assert ended["assets"] == [str(UUID(int=2))]
    assert ended["status"] == "completed"
    assert ended["reschedulable"] is False
    assert hub.asked[0].headers["authorization"] == "Bearer token-1"


async def test_what_was_kept_before_the_program_ended_is_delivered_by_the_next(tmp_path: Path) -> None:
    async with fake_hub() as hub:
        config = make_config(hub.socket_url, tmp_path)
        async with owing(config, deliver=False) as owed:
            uid = await owed.tasks.complete(TASK, status="failed", reason_code="weather")
        asked_before = len(hub.asked)
        async with owing(config) as owed:
            await done(owed.work)

    assert asked_before == 0
    assert [body["reportUid"] for _, _, body in hub.effects] == [str(uid)]


async def test_a_report_whose_answer_is_lost_is_sent_again_and_has_one_effect(tmp_path: Path) -> None:
    lost: list[str] = []

    def lose(asked: Asked) -> Answer | None:
        if len(lost) < 3:
            lost.append(asked.path)
            raise Cut
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.after = lose
        await owed.tasks.progress(TASK, phase="exposing", progress=0.5)
        await owed.tasks.complete(TASK, status="completed")
        await done(owed.work)

    assert len(lost) == 3
    assert hub.kinds(TASK) == ["progress", "complete"]
    bodies = {asked.body for asked in hub.asked if asked.path.endswith("progress")}
    assert len(bodies) == 1  # byte for byte the same each time


async def test_reports_wait_for_a_hub_that_is_away_and_go_when_it_is_back(tmp_path: Path) -> None:
    async with fake_hub() as hub, trio.open_nursery() as nursery, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.close()
        for task in (TASK, OTHER):
            await owed.tasks.progress(task, phase="slewing", progress=0.1)
            await owed.tasks.complete(task, status="completed")
        waiting = owed.work.owed.items
        await nursery.start(hub.listen)
        owed.linked()
        await done(owed.work)
        nursery.cancel_scope.cancel()

    assert waiting == 4
    assert hub.kinds(TASK) == hub.kinds(OTHER) == ["progress", "complete"]


async def test_a_report_that_is_refused_for_ever_is_set_aside_with_its_reason_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    def refuse(asked: Asked) -> Answer | None:
        return refusal(409, "illegal_transition") if asked.path.endswith("results") else None

    async with fake_hub() as hub:
        hub.before = refuse
        config = make_config(hub.socket_url, tmp_path)
        async with owing(config) as owed:
            await owed.tasks.progress(TASK, phase="exposing", progress=0.5)
            poison = await owed.tasks.results(TASK, {})
            await owed.tasks.complete(TASK, status="completed")
            await done(owed.work, failed=1)
        async with owing(config) as again:
            (item,) = again.work.failed
            hub.before = None
            retried = await again.work.keep(lambda queue: queue.try_again(poison))
            await done(again.work)

    assert (item.uid, item.kind, item.task_uid) == (poison, "results", TASK)
    assert item.reason == "illegal_transition: No: illegal_transition."
    assert retried
    assert hub.kinds(TASK) == ["progress", "complete", "results"]


async def test_what_was_set_aside_can_be_forgotten(tmp_path: Path) -> None:
    def refuse(asked: Asked) -> Answer | None:
        return refusal(422, "invalid")

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.before = refuse
        uid = await owed.tasks.complete(TASK, status="completed")
        await done(owed.work, failed=1)
        first = await owed.work.keep(lambda queue: queue.drop_failed(uid))
        second = await owed.work.keep(lambda queue: queue.drop_failed(uid))
        left = owed.work.failed

    assert (first, second, left) == (True, False, ())


@pytest.mark.parametrize("trouble", ["500", "cut", "429", "404 of a proxy"])
async def test_a_task_whose_report_fails_over_and_over_holds_up_no_other(tmp_path: Path, trouble: str) -> None:
    def fail(asked: Asked) -> Answer | None:
        if str(TASK) not in asked.path:
            return None
        if trouble == "cut":
            raise Cut
        return {
            "500": refusal(500, "internal", retry="query_first"),
            "429": refusal(429, "rate_limited", retry="after"),
            "404 of a proxy": refusal(404, None),
        }[trouble]

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.before = fail
        await owed.tasks.complete(TASK, status="completed")
        for step in range(5):
            await owed.tasks.progress(OTHER, phase="exposing", progress=step / 5)
            with trio.fail_after(PATIENCE_S):
                while len(hub.effects) <= step:
                    await owed.work.changed.wait()
        still_there = owed.work.owed

    assert still_there == (1, 0, 0)
    assert progresses(hub, OTHER) == [0.0, 0.2, 0.4, 0.6, 0.8]


async def test_nothing_is_sent_before_the_time_the_hub_asked_for(tmp_path: Path) -> None:
    asked_at: list[float] = []

    def refuse_once(asked: Asked) -> Answer | None:
        asked_at.append(trio.current_time())
        return refusal(503, "draining", retry="after", retry_after_s=1) if len(asked_at) == 1 else None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.before = refuse_once
        await owed.tasks.complete(TASK, status="completed")
        await owed.tasks.complete(OTHER, status="completed")
        await done(owed.work)

    first, *later = asked_at
    assert min(at for at in later if at > first + 0.5) >= first + 1.0


async def test_a_refused_token_is_asked_for_anew_and_never_costs_a_report(tmp_path: Path) -> None:
    tokens = iter(["old", "new", *["newer"] * 9])

    async def provide() -> str:
        return next(tokens)

    def refuse_old(asked: Asked) -> Answer | None:
        return refusal(401, "unauthenticated") if asked.headers["authorization"] == "Bearer old" else None

    async with fake_hub() as hub:
        hub.before = refuse_old
        async with owing(make_config(hub.socket_url, tmp_path, token=provide)) as owed:
            await owed.tasks.complete(TASK, status="completed")
            await done(owed.work)

    assert [asked.headers["authorization"] for asked in hub.asked] == ["Bearer old", "Bearer new"]
    assert hub.kinds(TASK) == ["complete"]


async def test_an_installation_that_is_forbidden_for_a_while_loses_nothing(tmp_path: Path) -> None:
    refusals: list[str] = []

    def forbid(asked: Asked) -> Answer | None:
        refusals.append(asked.path)
        return refusal(403, "forbidden") if len(refusals) == 1 else None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.before = forbid
        await owed.tasks.complete(TASK, status="completed")
        await done(owed.work)

    assert hub.kinds(TASK) == ["complete"]


async def test_the_answer_to_a_progress_report_is_handed_on(tmp_path: Path) -> None:
    told: list[tuple[TaskUid, dict[str, Any]]] = []
    async with (
        fake_hub() as hub,
        owing(make_config(hub.socket_url, tmp_path), directed=lambda task, answer: told.append((task, answer))) as owed,
    ):
        hub.directive = "abort"
        await owed.tasks.progress(TASK, phase="exposing", progress=0.5)
        await done(owed.work)

    assert told == [(TASK, {"directive": "abort", "reason": "because"})]


async def test_the_same_report_is_kept_once_and_its_uid_is_good_for_no_other(tmp_path: Path) -> None:
    uid = uuid4()
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path), deliver=False) as owed:
        for _ in range(2):
            await owed.tasks.complete(TASK, status="completed", report_uid=uid)
        kept = owed.work.owed.items
        with pytest.raises(IdReused, match=str(uid)):
            await owed.tasks.complete(TASK, status="failed", report_uid=uid)
        with pytest.raises(Invalid, match="cannot be sent"):
            await owed.tasks.complete(TASK, status="completed", summary="x" * 2_000_000)
        with pytest.raises(Invalid, match="no JSON"):
            await owed.tasks.progress(TASK, phase="exposing", progress=float("nan"))
        unchanged = owed.work.owed.items

    assert kept == unchanged == 1
    assert hub.asked == []


async def test_a_claim_whose_answer_is_lost_is_asked_for_again_by_the_same_uid(tmp_path: Path) -> None:
    lost: list[Asked] = []

    def lose(asked: Asked) -> Answer | None:
        lost.append(asked)
        if len(lost) < 3:
            raise Cut
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path)) as owed:
        hub.after = lose
        (task,) = await owed.tasks.claim(at_most=2)
        page = await owed.tasks.list(status="pending", orderBy=None, size=5)
        released = await owed.tasks.release(TASK)

    assert len({asked.body for asked in lost[:3]}) == 1
    assert task["claimUid"] == lost[0].json()["claimUid"]
    assert lost[0].json()["max"] == 2
    assert page["asked"] == "me/tasks?status=pending&size=5"
    assert released == {"uid": str(TASK)}
