"""What came in one message is committed whole, and what can never be committed blocks nothing."""

from collections.abc import Sequence
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.errors import StoreFailed
from skygw.ids import CommandId, InstallId, OutboxUid
from skygw.nodes.committer import BATCH_BYTES, BATCH_FRAMES, RETRY_S, Committer, TooManyUnacked
from skygw.nodes.ports import NOT_HELD, DurableReport
from skygw.protocol.gateway_frames import Ack, Nack
from skygw.protocol.limits import MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES
from skygw.protocol.node_frames import CommandStatus, Error, PublishCommandResult
from skygw.protocol.streams import StreamName
from tests.fakes.ports import MemoryCommands, MemoryReports, Switch

Clock = trio.testing.MockClock
OUTBOX = OutboxUid(uuid4())


def a_line(seq: int, text: str = "") -> DurableReport:
    return DurableReport(seq=seq, kind="publish_log", text=text, stream=StreamName.TELESCOPE_LOG, data=f'{{"n":{seq}}}')


def lines(first: int, last: int) -> list[DurableReport]:
    return [a_line(seq) for seq in range(first, last + 1)]


class CountedReports(MemoryReports):
    """Remembers each run that was brought."""

    def __init__(self, switch: Switch) -> None:
        super().__init__(switch, MemoryCommands(switch))
        self.runs: list[list[int]] = []
        self.tried = 0
        self.misunderstands = False

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        self.runs.append([report.seq for report in reports])
        if self.misunderstands:
            raise StoreFailed("A column was renamed.")
        return await super().commit(install_id, outbox_uid, reports)

    async def refuses(
        self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]
    ) -> str | None:
        self.tried += 1
        return await super().refuses(install_id, outbox_uid, reports)


class Results:
    """Told of results; only what is committed is of interest here."""

    def __init__(self) -> None:
        self.committed: list[PublishCommandResult] = []

    def session_started(self, *_: object) -> None: ...

    def result_arrived(self, *_: object) -> None: ...

    def result_committed(self, install_id: InstallId, result: PublishCommandResult) -> None:
        self.committed.append(result)

    def session_ended(self, *_: object) -> None: ...


class Session:
    """A committer with what it says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.database = Switch()
        self.store = CountedReports(self.database)
        self.results = Results()
        self.said: list[object] = []
        self.counted: list[str] = []
        self.committer = Committer(
            install_id=InstallId(uuid4()),
            outbox_uid=OUTBOX,
            acked_seq=0,
            store=self.store,
            results=self.results,
            say=self.said.append,
            count_nack=self.counted.append,
        )
        nursery.start_soon(self.committer.run)

    async def settle(self) -> None:
        await trio.sleep(10 * RETRY_S)

    @property
    def acks(self) -> list[int]:
        return [frame.seq for frame in self.said if isinstance(frame, Ack)]

    @property
    def nacks(self) -> list[tuple[int, str]]:
        return [(frame.seq, frame.reason) for frame in self.said if isinstance(frame, Nack)]


@pytest.fixture
async def session(nursery: trio.Nursery) -> Session:
    return Session(nursery)


async def test_a_unit_is_one_commit_and_one_ack(autojump_clock: Clock, session: Session) -> None:
    session.committer.take(lines(1, BATCH_FRAMES))
    await session.settle()
    assert session.store.runs == [list(range(1, BATCH_FRAMES + 1))]
    assert session.acks == [BATCH_FRAMES]


async def test_batches_are_of_whole_units(autojump_clock: Clock, session: Session) -> None:
    first, last = 1, 0
    for size in (BATCH_FRAMES, 3, BATCH_FRAMES - 2, 1, 1, BATCH_FRAMES + 5):
        first, last = last + 1, last + size
        session.committer.take(lines(first, last))
    await session.settle()
    assert [len(run) for run in session.store.runs] == [BATCH_FRAMES, 3, BATCH_FRAMES, BATCH_FRAMES + 5]
    assert session.committer.acked_seq == last
    assert session.committer.waiting == 0


async def test_a_batch_is_bounded_by_its_bytes(autojump_clock: Clock, session: Session) -> None:
    half = "x" * (BATCH_BYTES // 2)
    for seq in range(1, 6):
        session.committer.take([a_line(seq, half)])
    await session.settle()
    assert session.store.runs == [[1, 2], [3, 4], [5]]


async def test_of_a_unit_that_is_repeated_in_part_the_new_part_is_taken(
    autojump_clock: Clock, session: Session
) -> None:
    session.committer.take(lines(1, 3))
    await session.settle()
    session.committer.take(lines(2, 5))
    assert session.acks == [3, 3]
    await session.settle()
    assert session.store.runs == [[1, 2, 3], [4, 5]]
    assert session.acks == [3, 3, 5]


async def test_what_lies_behind_a_hole_in_a_unit_is_refused_once(autojump_clock: Clock, session: Session) -> None:
    session.committer.take([a_line(1), a_line(2), a_line(4), a_line(5)])
    await session.settle()
    errors = [frame for frame in session.said if isinstance(frame, Error)]
    assert [error.message for error in errors] == ["seq 4 came where 3 was due; send from there."]
    assert session.store.runs == [[1, 2]]


@pytest.mark.parametrize(
    "unit",
    [lines(1, MAX_UNACKED_FRAMES + 1), [a_line(1), a_line(2, "x" * MAX_UNACKED_BYTES + "x")]],
    ids=["frames", "bytes"],
)
async def test_of_a_unit_that_is_too_much_nothing_is_taken(
    autojump_clock: Clock, session: Session, unit: list[DurableReport]
) -> None:
    with pytest.raises(TooManyUnacked):
        session.committer.take(unit)
    assert session.committer.waiting == 0
    await session.settle()
    assert session.store.runs == []


@pytest.mark.parametrize("bad", [{1}, {4}, {7}, {2, 3}, {1, 4, 7}, set(range(1, 8))], ids=str)
async def test_what_the_store_cannot_hold_is_nacked_and_the_rest_is_committed_whole(
    autojump_clock: Clock, session: Session, bad: set[int]
) -> None:
    session.store.cannot_hold = bad
    session.committer.take(lines(1, 7))
    await session.settle()
    assert session.store.commits == 1
    rows = session.store.rows[OUTBOX]
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert {row.seq for row in rows if row.nacked is not None} == bad
    for row in rows:
        assert (row.stream, row.data) == (StreamName.TELESCOPE_LOG, "{}" if row.seq in bad else f'{{"n":{row.seq}}}')
    assert session.nacks == [(seq, NOT_HELD) for seq in sorted(bad)]
    assert session.acks == [7]


async def test_one_bad_report_among_many_is_found_in_few_tries(autojump_clock: Clock, session: Session) -> None:
    session.store.cannot_hold = {100}
    session.committer.take(lines(1, BATCH_FRAMES))
    await session.settle()
    assert session.nacks == [(100, NOT_HELD)]
    assert session.counted == ["publish_log"]
    assert session.store.tried < 25


async def test_a_result_that_is_nacked_is_told_on_to_nobody(autojump_clock: Clock, session: Session) -> None:
    session.store.cannot_hold = {2}
    said = [
        PublishCommandResult(seq=seq, command_id=CommandId(uuid4()), status=CommandStatus.COMPLETED) for seq in (1, 2)
    ]
    session.committer.take(
        [
            DurableReport(seq=each.seq, kind=each.kind, text="", result=each, stream=StreamName.COMMAND_RESULT)
            for each in said
        ]
    )
    await session.settle()
    assert session.results.committed == said[:1]
    assert session.acks == [2]


async def test_a_store_that_refuses_for_another_reason_is_waited_for_and_nothing_is_nacked(
    autojump_clock: Clock, session: Session
) -> None:
    session.store.misunderstands = True
    session.committer.take(lines(1, 3))
    await session.settle()
    assert session.said == []
    session.store.misunderstands = False
    await session.settle()
    assert session.nacks == []
    assert session.acks == [3]


async def test_a_store_that_goes_away_while_the_bad_report_is_looked_for_is_asked_again(
    autojump_clock: Clock, session: Session
) -> None:
    session.store.cannot_hold = {2}
    session.database.slow_s = 0.4
    session.committer.take(lines(1, 3))
    await trio.sleep(0.6)
    session.database.away = True
    await session.settle()
    assert session.said == []
    session.database.away = False
    await session.settle()
    assert session.nacks == [(2, NOT_HELD)]
    assert session.store.seqs(OUTBOX) == [1, 2, 3]
