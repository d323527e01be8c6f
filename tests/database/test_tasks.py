"""Tasks in PostgreSQL, as the role of the gateway sees them: claimed once, reported once, ended once."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest
import trio
from psycopg import sql

from skygw.control.lease import Holder, LeaseWish, Terms, WhileTask
from skygw.database.leases import PgLeases
from skygw.database.pool import Database, open_database
from skygw.database.provision import NewDevice, NewInstrument, NewObservatory, NewTelescope, provision
from skygw.database.task_board import PgTaskBoard
from skygw.database.task_ledger import FORGET
from skygw.database.tasks import PgTasks
from skygw.errors import (
    AssetsIncomplete,
    ConfigurationChanged,
    Forbidden,
    GatewayError,
    IdReused,
    IllegalTransition,
    InterlockActive,
    Invalid,
    LeaseHeld,
    LocalControl,
    NotFound,
)
from skygw.ids import DeviceUid, InstallId, LeaseUid, TaskUid, TelescopeUid
from skygw.observing.tasks import (
    STEPS,
    Claimed,
    Completion,
    Observer,
    OrderBy,
    Progress,
    Report,
    Results,
    Task,
    TaskQuery,
    TaskStatus,
    TaskType,
)
from skygw.protocol.gateway_frames import OnExpiry, TaskDirective
from skygw.resources import ResourceKind
from tests.fakes.postgres import PostgresServer

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@dataclass
class Dome:
    """A telescope with its imager under a roof that it shares, an observation of it, and who runs it."""

    server: PostgresServer
    store: PgTasks
    observatory_uid: UUID = field(default_factory=uuid4)
    telescope_uid: TelescopeUid = field(default_factory=lambda: TelescopeUid(uuid4()))
    install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))
    instrument_uid: UUID = field(default_factory=uuid4)
    roof_uid: DeviceUid = field(default_factory=lambda: DeviceUid(uuid4()))
    observation_uid: UUID = field(default_factory=uuid4)

    async def make(self) -> "Dome":
        imager = NewInstrument(self.instrument_uid, "optical_imager")
        telescope = NewTelescope(self.telescope_uid, "T", instruments=(imager,), install_id=self.install_id)
        roof = NewDevice(self.roof_uid, "enclosure")
        records = NewObservatory(
            self.observatory_uid, "O", (telescope,), devices=(roof,), install_id=InstallId(uuid4())
        )
        await provision(self.server.owner_url, [records])
        self.run("INSERT INTO observation (uid) VALUES (%s)", self.observation_uid)
        return self

    @property
    def me(self) -> Observer:
        return Observer(self.install_id, self.observatory_uid, (self.telescope_uid,))

    # The platform's side.

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.owner_url) as connection:
            found = connection.execute(statement.encode(), values)
            return found.fetchall() if found.description else []

    def task(self, status: str = "pending", **columns: Any) -> TaskUid:
        uid = TaskUid(uuid4())
        members = {"uid": uid, "task_type": "optical_imaging", "status": status, **columns}
        statement = sql.SQL(
            "INSERT INTO observation_task ({names}, instrument_id, observation_id) "
            "SELECT {values}, (SELECT id FROM instrument WHERE uid = {instrument}), "
            "(SELECT id FROM observation WHERE uid = {observation})"
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, members)),
            values=sql.SQL(", ").join(map(sql.Literal, members.values())),
            instrument=sql.Literal(self.instrument_uid),
            observation=sql.Literal(self.observation_uid),
        )
        with psycopg.connect(self.server.owner_url) as connection:
            connection.execute(statement)
        return uid

    def result(self, *tasks: TaskUid) -> UUID:
        uid = uuid4()
        self.run(
            "INSERT INTO observation_result (uid, observation_id, fulfillment_status) "
            "SELECT %s, id, 'dispatched' FROM observation WHERE uid = %s",
            uid,
            self.observation_uid,
        )
        for task in tasks:
            self.run(
                "INSERT INTO observation_result_task SELECT result.id, task.id FROM observation_result AS result, "
                "observation_task AS task WHERE result.uid = %s AND task.uid = %s",
                uid,
                task,
            )
        return uid

    def asset(self, *, state: str = "pending", is_remote: bool = False, observation: UUID | None = None) -> UUID:
        uid = uuid4()
        self.run(
            "INSERT INTO observation_asset (uid, observation_id, instrument_id, role, transfer_state, is_remote) "
            "SELECT %s, observation.id, instrument.id, 'SCIENCE_LIGHT', %s, %s FROM observation, instrument "
            "WHERE observation.uid = %s AND instrument.uid = %s",
            uid,
            state,
            is_remote,
            observation or self.observation_uid,
            self.instrument_uid,
        )
        return uid

    def verify(self, asset: UUID) -> list[UUID]:
        """As whoever verifies an asset does it, in one transaction, as the gateway's role; the results it fulfilled."""
        with psycopg.connect(self.server.gateway_url) as connection:
            connection.execute("UPDATE observation_asset SET transfer_state = 'completed' WHERE uid = %s", [asset])
            return [row[0] for row in connection.execute("SELECT skygw.fulfil_results_with(%s)", [[asset]])]

    def fulfillment(self, result: UUID) -> tuple[str, bool]:
        [(status, when)] = self.run(
            "SELECT fulfillment_status, fulfilled_on IS NOT NULL FROM observation_result WHERE uid = %s", result
        )
        return status, when

    def events(self, kind: str) -> list[dict[str, Any]]:
        rows = self.run(
            "SELECT data FROM skygw.log WHERE stream = 'task_report' AND install_id = %s ORDER BY position",
            self.install_id,
        )
        return [event for (text,) in rows if (event := json.loads(text))["kind"] == kind]

    # The node's side.

    async def claim(self, at_most: int = 1, *, uid: UUID | None = None, refusal: GatewayError | None = None) -> Claimed:
        report = Report(uid or uuid4(), digest_of(at_most), {})
        return await self.store.claim(self.me, report, at_most=at_most, refusal=refusal)

    async def claimed_task(self, **columns: Any) -> TaskUid:
        uid = self.task(**columns)
        claimed = await self.claim(100)
        assert uid in {task.uid for task in claimed.tasks}
        return uid

    async def begun_task(self, **columns: Any) -> TaskUid:
        uid = await self.claimed_task(**columns)
        await self.progress(uid)
        return uid

    async def progress(self, task: UUID, report: Progress | None = None) -> dict[str, Any]:
        return said(await self.store.progress(self.me, str(task), report or a_progress()))

    async def complete(self, task: UUID, report: Completion | None = None) -> dict[str, Any]:
        return said(await self.store.complete(self.me, str(task), report or a_completion()))

    async def read(self, task: UUID) -> Task:
        return await self.store.get(self.me, str(task))


def digest_of(*said: object) -> bytes:
    return sha256(repr(said).encode()).digest()


def said(answer: str) -> dict[str, Any]:
    return dict(json.loads(answer))


def a_progress(*, uid: UUID | None = None, at: datetime = NOW, progress: float = 0.1, **members: Any) -> Progress:
    phase = members.pop("phase", "exposing")
    return Progress(
        uid or uuid4(),
        digest_of(at, progress, phase, members),
        {"phase": phase},
        reported_at=at,
        phase=phase,
        progress=progress,
        **members,
    )


def a_completion(status: TaskStatus = TaskStatus.COMPLETED, *, uid: UUID | None = None, **members: Any) -> Completion:
    return Completion(uid or uuid4(), digest_of(status, members), {"status": status.value}, status=status, **members)


@pytest.fixture
async def dome(postgres: PostgresServer, database: Database) -> Dome:
    return await Dome(postgres, PgTasks(database)).make()


def uids(tasks: Sequence[Task]) -> list[TaskUid]:
    return [task.uid for task in tasks]


# Reading.


async def test_a_task_is_found_by_uid_and_by_key_and_nobody_elses_is(dome: Dome, postgres: PostgresServer) -> None:
    other = await Dome(postgres, dome.store).make()
    uid, theirs = dome.task(required_exposure_time=30.0), other.task()
    found = await dome.read(uid)
    assert (found.uid, found.status, found.members["required_exposure_time"]) == (uid, TaskStatus.PENDING, 30.0)
    assert found.members["observation_uid"] == dome.observation_uid
    assert (await dome.store.get(dome.me, str(found.members["id"]))).uid == uid
    refusals = set()
    for name in (str(theirs), str(uuid4()), "none", "0", "99999999999999999999999", "-1", "٣"):
        with pytest.raises(NotFound) as refused:
            await dome.store.get(dome.me, name)
        refusals.add(refused.value.message.replace(repr(name), ""))
    assert len(refusals) == 1


async def test_pages_are_filtered_and_ordered(dome: Dome) -> None:
    first = dome.task(earliest_start_time=NOW - HOUR)
    second = dome.task("completed", earliest_start_time=NOW, completed_on=NOW)
    third = dome.task(task_type="radio_tracking")

    async def page(**asked: Any) -> list[TaskUid]:
        found, total = await dome.store.page(dome.me, TaskQuery(**asked))
        assert total == len(found)
        return uids(found)

    assert await page() == [first, second, third]
    assert await page(statuses=[TaskStatus.PENDING]) == [first, third]
    assert await page(task_types=[TaskType.RADIO_TRACKING]) == [third]
    assert await page(order_by=OrderBy.EARLIEST_START_TIME, descending=True) == [second, first, third]
    start = OrderBy.EARLIEST_START_TIME
    assert await page(ranges={start: (NOW - HOUR, NOW)}) == [first]
    assert await page(ranges={start: (NOW, None), OrderBy.COMPLETED_ON: (None, NOW + HOUR)}) == [second]
    found, total = await dome.store.page(dome.me, TaskQuery(page=2, size=2))
    assert (uids(found), total) == ([third], 3)
    assert await dome.store.page(Observer(InstallId(uuid4()), dome.observatory_uid, ()), TaskQuery()) == ([], 0)


# Claims.


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "unassigned"},
        {"status": "active"},
        {"status": "canceled"},
        {"earliest_start_time": NOW + HOUR},
        {"expiration_time": NOW - HOUR},
        {"earliest_start_time": NOW - 2 * HOUR, "expiration_time": NOW - HOUR},
    ],
    ids=["unassigned", "active", "canceled", "too early", "too late", "over"],
)
async def test_what_is_not_to_be_claimed_now_is_not_claimed(dome: Dome, columns: dict[str, Any]) -> None:
    dome.task(**columns)
    assert await dome.claim() == Claimed((), None)
    assert dome.run("SELECT FROM skygw.task_report WHERE install_id = %s", dome.install_id) == []


async def test_what_is_in_its_window_is_claimed_the_one_that_is_planned_first_first(dome: Dome) -> None:
    later = dome.task(planned_start_time=NOW + HOUR, earliest_start_time=NOW - HOUR, expiration_time=NOW + 2 * HOUR)
    sooner = dome.task(planned_start_time=NOW)
    at_once = dome.task()
    claimed = await dome.claim(2)
    assert sorted(uids(claimed.tasks)) == sorted([at_once, sooner])
    assert uids((await dome.claim(5)).tasks) == [later]
    assert (await dome.claim(5)).tasks == ()
    read = await dome.read(sooner)
    assert read.status is TaskStatus.PENDING
    assert read.claim is not None
    assert read.claim.is_held
    assert timedelta(0) < read.claim.expires_at - datetime.now(UTC) <= timedelta(minutes=10)
    [event, _] = dome.events("claim")
    assert sorted(event["task_uids"]) == sorted([str(at_once), str(sooner)])


async def test_a_claim_that_is_repeated_is_the_same_and_another_under_its_id_is_refused(dome: Dome) -> None:
    for _ in range(3):
        dome.task()
    claim = uuid4()
    first, again = await dome.claim(2, uid=claim), await dome.claim(2, uid=claim)
    assert (uids(first.tasks), first.expires_at) == (uids(again.tasks), again.expires_at)
    assert len(dome.events("claim")) == 1
    with pytest.raises(IdReused):
        await dome.claim(1, uid=claim)
    # Also when its answer was lost and something has come in the way since.
    dome.run("UPDATE telescope SET control_authority = 'manual' WHERE uid = %s", dome.telescope_uid)
    assert uids((await dome.claim(2, uid=claim)).tasks) == uids(first.tasks)


async def test_what_is_in_the_way_of_a_claim_is_said(dome: Dome, database: Database) -> None:
    task = dome.task()
    dome.run("UPDATE telescope SET control_authority = 'manual' WHERE uid = %s", dome.telescope_uid)
    with pytest.raises(LocalControl) as manual:
        await dome.claim()
    assert manual.value.details == {"controlAuthority": "manual"}
    dome.run("UPDATE telescope SET control_authority = 'remote' WHERE uid = %s", dome.telescope_uid)
    with pytest.raises(InterlockActive):
        await dome.claim(refusal=InterlockActive("It rains."))
    leases = PgLeases(database)
    for target, kind in ((dome.telescope_uid, ResourceKind.TELESCOPE), (dome.roof_uid, ResourceKind.DEVICE)):
        wish = LeaseWish(target, kind, LeaseUid(uuid4()), Holder("web", "anna", "user"), Terms(60, 5, OnExpiry.STOP))
        control, _ = await leases.acquire(wish)
        with pytest.raises(LeaseHeld) as held:
            await dome.claim()
        assert held.value.details["uid"] == str(target)
        assert held.value.details["holder"] == {"service": "web", "actor": {"uid": "anna", "kind": "user"}}
        assert control.lease is not None
        dome.run("UPDATE skygw.lease SET expires_at = now() WHERE lease_id = %s", control.lease.lease_id)
    with pytest.raises(Forbidden):
        await dome.store.claim(
            Observer(dome.install_id, dome.observatory_uid, ()), Report(uuid4(), b"", {}), at_most=1, refusal=None
        )
    assert uids((await dome.claim()).tasks) == [task]


async def test_a_task_for_an_instrument_that_has_changed_is_passed_over_and_named(dome: Dome) -> None:
    old, good = dome.task(instrument_configuration_version=1), dome.task(instrument_configuration_version=2)
    dome.run("UPDATE instrument SET configuration_version = 2 WHERE uid = %s", dome.instrument_uid)
    claimed = await dome.claim(5)
    assert uids(claimed.tasks) == [good]
    assert [(each.uid, each.made_for, each.current) for each in claimed.passed_over] == [(old, 1, 2)]
    with pytest.raises(ConfigurationChanged) as refused:
        await dome.claim(5)
    assert refused.value.details["tasks"][0]["taskUid"] == str(old)


async def test_a_hundred_claims_at_once_over_two_gateways_get_each_task_once(
    dome: Dome, postgres: PostgresServer
) -> None:
    tasks = {dome.task() for _ in range(60)}
    got: list[TaskUid] = []
    second = Observer(InstallId(uuid4()), dome.observatory_uid, (dome.telescope_uid,))
    async with open_database(postgres.gateway_url) as another:
        stores = [dome.store, PgTasks(another)]

        async def claim(number: int) -> None:
            who = (dome.me, second)[number % 2]
            report = Report(uuid4(), b"1", {})
            claimed = await stores[number // 50].claim(who, report, at_most=1, refusal=None)
            got.extend(uids(claimed.tasks))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(claim, number)
    rest = uids((await dome.claim(100)).tasks)
    assert sorted(got + rest) == sorted(tasks)
    claims = dome.run("SELECT count(*) FROM skygw.task_claim WHERE task_uid = ANY (%s)", list(tasks))
    assert claims == [(60,)]


async def test_the_same_claim_twice_at_once_is_one(dome: Dome) -> None:
    tasks = [dome.task() for _ in range(4)]
    claim, got = uuid4(), list[list[TaskUid]]()

    async def ask() -> None:
        got.append(uids((await dome.claim(2, uid=claim)).tasks))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert len({tuple(each) for each in got}) == 1
    assert len(got[0]) == 2
    free = (await dome.claim(4)).tasks
    assert sorted(got[0] + uids(free)) == sorted(tasks)


async def test_a_claim_that_was_not_begun_lapses_when_nothing_is_heard_of_its_node(dome: Dome) -> None:
    idle, begun = await dome.claimed_task(), await dome.begun_task()
    age = "UPDATE skygw.task_claim SET expires_at = now() - interval '1 second' WHERE install_id = %s"
    dome.run(age, dome.install_id)
    await dome.store.extend([InstallId(uuid4())])
    other = Observer(InstallId(uuid4()), dome.observatory_uid, (dome.telescope_uid,))
    claimed = await dome.store.claim(other, Report(uuid4(), b"", {}), at_most=5, refusal=None)
    assert uids(claimed.tasks) == [idle]
    with pytest.raises(IllegalTransition):
        await dome.progress(idle)
    assert (await dome.progress(begun))["status"] == "active"
    # Of whoever is heard it does not lapse.
    await dome.store.extend([other.install_id])
    dome.run(age, other.install_id)
    await dome.store.extend([other.install_id])
    assert (await dome.claim()).tasks == ()


async def test_a_lapsed_claim_that_nobody_took_is_still_its_nodes(dome: Dome) -> None:
    task = await dome.claimed_task()
    dome.run("UPDATE skygw.task_claim SET expires_at = now() - interval '1 hour' WHERE task_uid = %s", task)
    assert (await dome.progress(task))["status"] == "active"


async def test_a_task_that_is_given_back_can_be_claimed_and_one_that_has_begun_is_not_given_back(dome: Dome) -> None:
    task = await dome.claimed_task()
    for _ in range(2):
        assert (await dome.store.release(dome.me, str(task))).claim is None
    assert len(dome.events("release")) == 1
    assert uids((await dome.claim()).tasks) == [task]
    await dome.progress(task)
    with pytest.raises(IllegalTransition, match="has begun"):
        await dome.store.release(dome.me, str(task))


# Progress.


async def test_the_first_progress_begins_a_task_by_the_nodes_clock_and_the_hubs_is_beside_it(dome: Dome) -> None:
    task = await dome.claimed_task()
    at = NOW - timedelta(days=2)
    answer = await dome.progress(task, a_progress(at=at, accumulated_exposure_time=12.5, observatory_acquired_frames=3))
    assert (answer["status"], answer["directive"], answer["reason"]) == ("active", "continue", None)
    read = await dome.read(task)
    assert read.status is TaskStatus.ACTIVE
    assert read.members["actual_start_time"] == at
    assert (read.members["accumulated_exposure_time"], read.members["observatory_acquired_frames"]) == (12.5, 3)
    assert read.claim is not None
    assert read.claim.started_at is not None
    assert abs(read.claim.started_at - datetime.now(UTC)) < HOUR
    assert read.claim.reported_at == at


async def test_a_late_report_is_taken_and_moves_nothing_back(dome: Dome) -> None:
    task = await dome.begun_task()
    await dome.progress(task, a_progress(progress=0.8, phase="reading", observatory_acquired_frames=8))
    late = a_progress(at=NOW - HOUR, progress=0.2, phase="slewing", observatory_acquired_frames=2)
    assert (await dome.progress(task, late))["status"] == "active"
    read = await dome.read(task)
    assert read.claim is not None
    assert (read.claim.progress, read.members["observatory_acquired_frames"]) == (0.8, 8)
    assert read.claim.reported_at == NOW
    assert read.claim.phase != "slewing"
    await dome.complete(task)
    answer = await dome.progress(task, a_progress(progress=0.9))
    assert (answer["status"], answer["directive"], answer["reason"]) == ("completed", "stop", "completed")
    assert len(dome.events("progress")) == 4


async def test_a_report_said_twice_counts_once_and_has_one_answer(dome: Dome) -> None:
    task = await dome.claimed_task()
    other = await dome.claimed_task()
    report = a_progress()
    first = await dome.progress(task, report)
    dome.run("UPDATE observation_task SET status = 'canceled' WHERE uid = %s", task)
    assert await dome.progress(task, report) == first
    assert len(dome.events("progress")) == 1
    with pytest.raises(IdReused):
        await dome.progress(task, a_progress(uid=report.uid, progress=0.5))
    with pytest.raises(IdReused):
        await dome.progress(other, report)
    with pytest.raises(IdReused):
        await dome.complete(task, a_completion(uid=report.uid))


async def test_a_report_of_one_id_for_two_tasks_at_once_counts_for_one(dome: Dome) -> None:
    tasks = [await dome.claimed_task(), await dome.claimed_task()]
    report, refused = a_progress(), list[IdReused]()

    async def say(task: TaskUid) -> None:
        try:
            await dome.progress(task, report)
        except IdReused as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(say, task)
    assert len(refused) == 1
    assert sorted([(await dome.read(task)).status for task in tasks]) == [TaskStatus.ACTIVE, TaskStatus.PENDING]


async def test_who_has_not_claimed_a_task_reports_nothing_of_it(dome: Dome) -> None:
    task = dome.task()
    with pytest.raises(IllegalTransition, match="no claim"):
        await dome.progress(task)
    with pytest.raises(IllegalTransition, match="no claim"):
        await dome.complete(task)
    assert (await dome.read(task)).status is TaskStatus.PENDING
    assert dome.events("progress") == []


async def test_what_the_hub_does_not_want_any_more_is_said_in_the_answer(dome: Dome, database: Database) -> None:
    over = await dome.begun_task(expiration_time=datetime.now(UTC) + HOUR)
    dome.run("UPDATE observation_task SET expiration_time = now() WHERE uid = %s", over)
    canceled = await dome.begun_task()
    dome.run("UPDATE observation_task SET status = 'canceled' WHERE uid = %s", canceled)
    interrupted = await dome.begun_task()
    answers = [await dome.progress(task) for task in (over, canceled, interrupted)]
    assert [(answer["directive"], answer["reason"]) for answer in answers] == [
        ("stop", "window_missed"),
        ("abort", "canceled"),
        ("continue", None),
    ]
    board = await PgTaskBoard(database).unwanted([dome.telescope_uid])
    assert {(word.uid, word.directive) for word in board} == {
        (over, TaskDirective.STOP),
        (canceled, TaskDirective.ABORT),
    }
    waiting = await dome.claimed_task()
    wish = LeaseWish(
        dome.telescope_uid,
        ResourceKind.TELESCOPE,
        LeaseUid(uuid4()),
        Holder("web"),
        Terms(60, 5, OnExpiry.STOP),
        WhileTask.FINISH,
    )
    await PgLeases(database).acquire(wish)
    finishing, against = await dome.progress(interrupted), await dome.progress(waiting)
    assert (finishing["directive"], against["directive"], against["reason"]) == ("continue", "abort", "lease")


async def test_what_is_known_at_the_end_does_not_depend_on_the_order_of_the_reports(dome: Dome) -> None:
    chance = Random(20261122)  # noqa: S311 - not for secrets
    for _ in range(5):
        reports = [
            a_progress(
                at=NOW + timedelta(seconds=chance.randrange(3)),
                progress=chance.random(),
                phase=chance.choice(["slewing", "exposing", "reading"]),
                accumulated_exposure_time=chance.choice([None, 0.0, 5.0, 60.0]),
                observatory_acquired_frames=chance.choice([None, 0, 1, 7]),
            )
            for _ in range(6)
        ]
        known = set()
        for _ in range(4):
            task = await dome.claimed_task()
            for report in chance.sample(reports, len(reports)) + chance.sample(reports, 2):
                again = replace(report, uid=uuid5(task, str(report.uid)))
                before = await dome.read(task)
                await dome.progress(task, again)
                after = await dome.read(task)
                assert before.claim is not None
                assert after.claim is not None
                assert (before.claim.progress or 0.0) <= (after.claim.progress or 0.0)
            read = await dome.read(task)
            assert read.claim is not None
            names = ("actual_start_time", "accumulated_exposure_time", "observatory_acquired_frames")
            # The ids differ from task to task, and break ties between two with one time.
            newest = max(report.reported_at for report in reports)
            assert read.claim.phase in {report.phase for report in reports if report.reported_at == newest}
            known.add((read.status, read.claim.progress, read.claim.reported_at, *map(read.members.get, names)))
        assert len(known) == 1


async def test_a_gateway_that_dies_behind_the_commit_has_taken_the_report(dome: Dome, database: Database) -> None:
    class DiesError(Exception):
        pass

    def die() -> None:
        raise DiesError

    dying, after = PgTasks(database, committed=die), PgTasks(database)
    first, second = dome.task(), dome.task()
    claim, progress, ending = Report(uuid4(), b"2", {}), a_progress(), a_completion()
    with pytest.raises(DiesError):
        await dying.claim(dome.me, claim, at_most=2, refusal=None)
    claimed = await after.claim(dome.me, claim, at_most=2, refusal=None)
    assert sorted(uids(claimed.tasks)) == sorted([first, second])
    with pytest.raises(DiesError):
        await dying.progress(dome.me, str(first), progress)
    answer = said(await after.progress(dome.me, str(first), progress))
    assert (answer["reportUid"], answer["status"]) == (str(progress.uid), "active")
    with pytest.raises(DiesError):
        await dying.complete(dome.me, str(first), ending)
    assert said(await after.complete(dome.me, str(first), ending))["status"] == "completed"
    assert [len(dome.events(kind)) for kind in ("claim", "progress", "complete")] == [1, 1, 1]


# Ends.


async def test_the_table_of_steps_is_the_one_the_rules_have(dome: Dome) -> None:
    rows = dome.run("SELECT from_status, to_status FROM skygw.task_step")
    assert set(rows) == {(start.value, end.value) for start, ends in STEPS.items() for end in ends}


async def test_the_gateways_role_moves_a_task_along_the_table_alone(dome: Dome) -> None:
    moved: set[tuple[TaskStatus, TaskStatus]] = set()
    with psycopg.connect(dome.server.gateway_url, autocommit=True) as gateway:
        for start in TaskStatus:
            for end in TaskStatus:
                uid = dome.task(start.value)
                with suppress(psycopg.errors.CheckViolation):
                    gateway.execute("UPDATE observation_task SET status = %s WHERE uid = %s", [end.value, uid])
                    moved.add((start, end))
    table = {(start, end) for start, ends in STEPS.items() for end in ends}
    assert moved == table | {(status, status) for status in TaskStatus}


async def test_an_end_stays_and_the_same_end_again_is_no_mistake(dome: Dome) -> None:
    task = await dome.begun_task()
    start, end = NOW - HOUR, NOW - timedelta(minutes=1)
    failed = a_completion(
        TaskStatus.FAILED,
        reason_code="weather",
        reschedulable=True,
        actual_start_time=start,
        actual_end_time=end,
        summary="It rained.",
    )
    assert (await dome.complete(task, failed))["status"] == "failed"
    read = await dome.read(task)
    assert (read.members["actual_start_time"], read.members["actual_end_time"]) == (start, end)
    assert read.members["completed_on"] is None
    assert read.claim is not None
    assert read.claim.ended_at is not None
    assert (await dome.complete(task, a_completion(TaskStatus.FAILED)))["status"] == "failed"
    for other in (TaskStatus.COMPLETED, TaskStatus.INTERRUPTED):
        with pytest.raises(IllegalTransition, match="has ended"):
            await dome.complete(task, a_completion(other))
    assert (await dome.read(task)).status is TaskStatus.FAILED
    assert (await dome.claim(5)).tasks == ()


async def test_what_was_begun_was_attempted(dome: Dome) -> None:
    begun, idle = await dome.begun_task(), await dome.claimed_task()
    with pytest.raises(IllegalTransition, match=r"possible: canceled, completed, failed, interrupted"):
        await dome.complete(begun, a_completion(TaskStatus.NOT_ATTEMPTED))
    assert (await dome.complete(idle, a_completion(TaskStatus.NOT_ATTEMPTED)))["status"] == "not_attempted"


async def test_what_the_platform_has_canceled_stays_so_and_its_node_is_heard_to_the_end(dome: Dome) -> None:
    task = await dome.begun_task()
    dome.run("UPDATE observation_task SET status = 'canceled' WHERE uid = %s", task)
    answer = await dome.complete(task, a_completion(TaskStatus.COMPLETED, assets=(uuid4(),)))
    assert answer["status"] == "canceled"
    [event] = dome.events("complete")
    assert (event["status"], event["task_status"]) == ("completed", "canceled")


async def test_a_completed_task_has_declared_assets_and_other_ends_are_not_held_up(
    dome: Dome, postgres: PostgresServer
) -> None:
    other = await Dome(postgres, dome.store).make()
    foreign, elsewhere = other.asset(), dome.asset(observation=other.observation_uid)
    declared, unknown = dome.asset(), uuid4()
    task = await dome.begun_task()
    report = a_completion(assets=(declared, unknown, foreign, elsewhere))
    with pytest.raises(AssetsIncomplete) as refused:
        await dome.complete(task, report)
    assert refused.value.details == {
        "undeclared": sorted([str(unknown), str(foreign)]),
        "differing": [str(elsewhere)],
    }
    assert (await dome.read(task)).status is TaskStatus.ACTIVE
    # A refused report has used its id for nothing.
    assert (await dome.complete(task, a_completion(uid=report.uid, assets=(declared,))))["status"] == "completed"
    failed = await dome.begun_task()
    assert (await dome.complete(failed, a_completion(TaskStatus.FAILED, assets=(unknown,))))["status"] == "failed"


# Fulfilment.


async def test_a_result_is_fulfilled_when_its_last_asset_is_verified(dome: Dome) -> None:
    task = await dome.claimed_task()
    result = dome.result(task)
    assets = [dome.asset(), dome.asset(), dome.asset(is_remote=True)]
    await dome.progress(task)
    assert dome.fulfillment(result) == ("dispatched", False)
    await dome.complete(task, a_completion(assets=tuple(assets)))
    assert dome.fulfillment(result) == ("partially_fulfilled", False)
    assert dome.verify(assets[0]) == []
    assert dome.fulfillment(result) == ("partially_fulfilled", False)
    assert dome.verify(assets[1]) == [result]
    assert dome.fulfillment(result) == ("fulfilled", True)


async def test_a_result_waits_for_its_last_task_and_one_that_completed_is_enough(dome: Dome) -> None:
    first, second, third = [await dome.claimed_task() for _ in range(3)]
    result, hopeless = dome.result(first, second), dome.result(third)
    answer = await dome.complete(first, a_completion(assets=(dome.asset(state="completed"),)))
    assert answer["fulfilled"] == []
    assert dome.fulfillment(result) == ("partially_fulfilled", False)
    answer = await dome.complete(second, a_completion(TaskStatus.FAILED))
    assert answer["fulfilled"] == [str(result)]
    assert dome.fulfillment(result) == ("fulfilled", True)
    await dome.complete(third, a_completion(TaskStatus.NOT_ATTEMPTED))
    assert dome.fulfillment(hopeless) == ("partially_fulfilled", False)


async def test_a_completed_task_without_assets_fulfils_nothing(dome: Dome) -> None:
    task = await dome.claimed_task()
    result = dome.result(task)
    await dome.complete(task)
    assert dome.fulfillment(result) == ("partially_fulfilled", False)
    report = Results(uuid4(), b"", {}, results={result: (dome.asset(state="completed"),)})
    assert said(await dome.store.results(dome.me, str(task), report))["fulfilled"] == [str(result)]


async def test_results_are_those_of_the_task_and_their_assets_are_declared(dome: Dome) -> None:
    task, other = await dome.claimed_task(), await dome.claimed_task()
    mine, theirs = dome.result(task), dome.result(other)
    with pytest.raises(Invalid) as refused:
        await dome.store.results(dome.me, str(task), Results(uuid4(), b"", {}, results={mine: (), theirs: ()}))
    assert refused.value.fields[0]["loc"] == ["body", "results", 1, "resultUid"]
    with pytest.raises(AssetsIncomplete):
        await dome.store.results(dome.me, str(task), Results(uuid4(), b"", {}, results={mine: (uuid4(),)}))


async def test_a_canceled_result_stays_canceled(dome: Dome) -> None:
    task = await dome.claimed_task()
    result = dome.result(task)
    dome.run("UPDATE observation_result SET fulfillment_status = 'canceled' WHERE uid = %s", result)
    await dome.complete(task, a_completion(assets=(dome.asset(state="completed"),)))
    assert dome.fulfillment(result) == ("canceled", False)


async def test_the_last_asset_and_the_end_of_the_task_at_once_fulfil_the_result(dome: Dome) -> None:
    for _ in range(10):
        task = await dome.claimed_task()
        result, asset = dome.result(task), dome.asset()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dome.complete, task, a_completion(assets=(asset,)))
            nursery.start_soon(trio.to_thread.run_sync, dome.verify, asset)
        assert dome.fulfillment(result) == ("fulfilled", True)


async def test_the_last_two_tasks_that_end_at_once_fulfil_the_result(dome: Dome) -> None:
    for _ in range(10):
        tasks = [await dome.claimed_task() for _ in range(2)]
        result = dome.result(*tasks)
        async with trio.open_nursery() as nursery:
            for task in tasks:
                report = a_completion(assets=(dome.asset(state="completed"),))
                nursery.start_soon(dome.complete, task, report)
        assert dome.fulfillment(result) == ("fulfilled", True)


# Keeping.


async def test_only_old_reports_are_forgotten_a_few_at_a_time(dome: Dome, database: Database) -> None:
    task = await dome.claimed_task()
    for _ in range(3):
        await dome.progress(task)
    dome.run(
        "UPDATE skygw.task_report SET received_at = now() - interval '40 days' WHERE install_id = %s AND kind = "
        "'progress'",
        dome.install_id,
    )
    async with database.connection() as connection:
        assert await connection.fetchval(FORGET, timedelta(days=30), 2) == 2
        assert await connection.fetchval(FORGET, timedelta(days=30), 2) == 1
        assert await connection.fetchval(FORGET, timedelta(days=30), 2) == 0
    assert dome.run("SELECT kind FROM skygw.task_report WHERE install_id = %s", dome.install_id) == [("claim",)]
