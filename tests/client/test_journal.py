"""The node's durable memory: numbers, room, cursors, and what a kill leaves behind."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from skygw.client.journal import FILE_NAME, Journal, StateInUse
from skygw.errors import Invalid
from skygw.ids import CommandId
from skygw.protocol.codec import BadFrame, from_node
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB
from skygw.protocol.node_frames import (
    CommandStatus,
    Durable,
    PublishCommandResult,
    PublishEvent,
    PublishGap,
    PublishLog,
)

A_LATE_TIME = datetime(2100, 1, 1, tzinfo=UTC)
LATE_EVENT = PublishEvent(seq=1, data=Opaque.of({"event_type": "rain_began"}), observed_at=A_LATE_TIME)


class OpenJournal(Protocol):
    def __call__(self, *, max_bytes: int) -> Journal: ...


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[OpenJournal]:
    """Opens the journal of this test's folder; closes what the test left open."""
    opened: list[Journal] = []

    def opening(*, max_bytes: int) -> Journal:
        opened.append(Journal(tmp_path, max_bytes=max_bytes))
        return opened[-1]

    yield opening
    for journal in opened:
        journal.close()


def line(text: str = "dome opened") -> PublishLog:
    return PublishLog(seq=1, data=Opaque.of({"text": text}), observed_at=datetime.now(UTC))


def result(command_id: CommandId, status: CommandStatus) -> PublishCommandResult:
    return PublishCommandResult(seq=1, command_id=command_id, status=status)


def frames(journal: Journal, *, after: int = 0) -> list[Durable]:
    found: list[Durable] = []
    for row in journal.read(after=after, at_most=1_000, max_bytes=MIB):
        (read,) = from_node.decode(row.text)
        assert not isinstance(read, BadFrame)
        assert isinstance(read.frame, Durable)
        assert read.frame.seq == row.seq
        found.append(read.frame)
    return found


def test_frames_are_numbered_without_holes_across_openings(open_journal: OpenJournal) -> None:
    first = open_journal(max_bytes=MIB)
    uid = first.outbox_uid
    assert [first.append(line(), may_drop=True) for _ in range(3)] == [1, 2, 3]
    first.acknowledge(2)
    first.close()
    second = open_journal(max_bytes=MIB)

    assert second.outbox_uid == uid
    assert second.acked == 2
    assert second.append(line(), may_drop=True) == 4
    assert [frame.seq for frame in frames(second)] == [3, 4]


def test_a_killed_program_loses_nothing_it_was_told_is_kept(tmp_path: Path, open_journal: OpenJournal) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.client.test_journal import Journal, line, MIB\n"
        "journal = Journal(Path(sys.argv[1]), max_bytes=MIB)\n"
        "while True: print(journal.append(line(), may_drop=True), flush=True)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    with program:
        told = [int(program.stdout.readline()) for _ in range(20)]
        os.kill(program.pid, signal.SIGKILL)
        told += [int(last) for last in program.stdout.read().split("\n")[:-1] if last]
    journal = open_journal(max_bytes=MIB)

    assert journal.last_seq >= told[-1]
    assert [frame.seq for frame in frames(journal)][: len(told)] == told


def test_a_full_outbox_keeps_what_it_has_and_declares_how_much_it_could_not_take(open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=400)
    kept = [seq for seq in (journal.append(line(), may_drop=True) for _ in range(10)) if seq is not None]
    journal.append(LATE_EVENT, may_drop=True)
    lost = 10 - len(kept)
    journal.acknowledge(kept[-1] - 1)
    last = frames(journal)[-1]

    assert lost > 0
    assert isinstance(last, PublishGap)
    said = last.data.value
    assert (said["reason"], said["count"]) == ("outbox_full", lost + 1)
    assert said["kinds"] == {"publish_log": lost, "publish_event": 1}
    assert said["from"] < said["to"] == A_LATE_TIME.isoformat()
    assert [frame.seq for frame in frames(journal)] == [kept[-1], kept[-1] + 1]


def test_a_command_result_is_kept_even_when_the_outbox_is_full(open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=100)
    while journal.append(line(), may_drop=True) is not None:
        pass
    command_id = CommandId(uuid4())
    journal.report(result(command_id, CommandStatus.COMPLETED))
    last = frames(journal)[-1]

    assert isinstance(last, PublishCommandResult)
    assert last.command_id == command_id


def test_a_command_that_has_ended_stays_as_it_ended(open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=MIB)
    command_id = CommandId(uuid4())
    journal.begin_command(command_id, [result(command_id, CommandStatus.ACCEPTED)])
    journal.report(result(command_id, CommandStatus.COMPLETED))
    journal.report(result(command_id, CommandStatus.FAILED))
    known = journal.begin_command(command_id, [result(command_id, CommandStatus.ACCEPTED)])

    assert known is not None
    assert known.status == "completed"
    assert journal.last_seq == 2


def test_a_hub_that_lost_what_it_acknowledged_gets_a_new_outbox_that_says_so(open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=MIB)
    uid = journal.outbox_uid
    for text in "abcde":
        journal.append(line(text), may_drop=True)
    journal.acknowledge(4)
    journal.start_anew(hub_has=1)
    gap, last = frames(journal)

    assert journal.outbox_uid != uid
    assert isinstance(gap, PublishGap)
    assert gap.data.value == {
        "reason": "lost_at_hub",
        "count": 3,
        "outbox_uid": str(uid),
        "from_seq": 2,
        "to_seq": 4,
    }
    assert isinstance(last, PublishLog)
    assert (last.seq, last.data.value) == (2, {"text": "e"})


@pytest.mark.parametrize(
    "data",
    [{"text": "x" * 65 * 1024}, {"values": [0] * 10_000}, {"deep": json.loads("[" * 31 + "]" * 31)}],
    ids=["too large", "too many values", "too deep"],
)
def test_a_frame_that_no_message_can_carry_is_refused_and_leaves_no_trace(
    open_journal: OpenJournal, data: dict[str, object]
) -> None:
    journal = open_journal(max_bytes=MIB)
    with pytest.raises(Invalid, match="cannot be sent"):
        journal.append(PublishLog(seq=1, data=Opaque.of(data), observed_at=datetime.now(UTC)), may_drop=True)

    assert journal.append(line(), may_drop=True) == 1


def test_two_programs_cannot_share_a_state_directory(open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=MIB)
    with pytest.raises(StateInUse):
        open_journal(max_bytes=MIB)
    journal.close()


def test_a_damaged_file_is_put_aside_and_the_loss_declared(tmp_path: Path, open_journal: OpenJournal) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 1_000)
    journal = open_journal(max_bytes=MIB)
    (gap,) = frames(journal)

    assert isinstance(gap, PublishGap)
    assert gap.data.value == {"reason": "journal_damaged"}
    assert list(tmp_path.glob("*.damaged-*"))


def test_the_files_are_for_their_owner_alone(tmp_path: Path, open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=MIB)
    mode = (tmp_path / FILE_NAME).stat().st_mode & 0o777
    journal.close()

    assert mode == 0o600


def test_outcomes_older_than_thirty_days_are_forgotten(tmp_path: Path, open_journal: OpenJournal) -> None:
    journal = open_journal(max_bytes=MIB)
    command_id = CommandId(uuid4())
    journal.report(result(command_id, CommandStatus.COMPLETED))
    journal.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE outcomes SET at = at - 31 * 86400")
    connection.close()

    assert open_journal(max_bytes=MIB).command_ids(at_most=10) == []
