"""The device journal keeps every action in order, across restarts and torn lines, and finds what happened twice."""

from pathlib import Path
from uuid import UUID

import pytest

from skygw.ids import CommandId, DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.journal import (
    Action,
    DeviceJournal,
    JournalDamaged,
    MemoryJournal,
    Order,
    actions_by_command,
    done_twice,
    effects_of,
    movers_of,
    open_journal,
    read_journal,
)

MOUNT = DeviceUid(UUID(int=1))
CAMERA = DeviceUid(UUID(int=2))
FIRST = CommandId(UUID(int=11))
SECOND = CommandId(UUID(int=12))


def _observe(journal: DeviceJournal) -> None:
    journal.record(MOUNT, Action.SLEW_STARTED, Order(FIRST), {"goal": {"ra_deg": 250.0}})
    journal.record(MOUNT, Action.SLEW_REACHED, Order(FIRST))
    journal.record(CAMERA, Action.EXPOSURE_STARTED, Order(SECOND))
    journal.record(MOUNT, Action.PARK_STARTED, Order(cause="policy: weather"))


async def test_memory_and_file_tell_the_same_story(sim_clock: SimClock, tmp_path: Path) -> None:
    remembered = MemoryJournal(sim_clock)
    _observe(remembered)
    with open_journal(sim_clock, tmp_path / "journal.jsonl", fsync=True) as written:
        _observe(written)
        told = [(entry.number, entry.action, entry.command_id, entry.details) for entry in written.entries()]
    assert told == [(entry.number, entry.action, entry.command_id, entry.details) for entry in remembered.entries()]
    assert [number for number, *_rest in told] == [1, 2, 3, 4]


async def test_numbers_go_on_after_a_restart(sim_clock: SimClock, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    with open_journal(sim_clock, path) as journal:
        _observe(journal)
    with open_journal(sim_clock, path) as journal:
        _observe(journal)
    entries = read_journal(path)
    assert [entry.number for entry in entries] == list(range(1, 10))
    assert entries[4].action is Action.JOURNAL_REOPENED
    assert entries[4].details == {"torn_bytes": 0}


async def test_a_torn_last_line_is_left_out_and_cut_off_when_the_journal_opens_again(
    sim_clock: SimClock, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(sim_clock, path) as journal:
        _observe(journal)
    with path.open("ab") as file:
        file.write(b'{"number":5,"action":"slew_')
    assert len(read_journal(path)) == 4
    with open_journal(sim_clock, path) as journal:
        reopened = journal.entries()[-1]
        journal.record(MOUNT, Action.UNPARKED, Order(FIRST))
    assert reopened.details == {"torn_bytes": 27}
    assert [entry.number for entry in read_journal(path)] == [1, 2, 3, 4, 5, 6]


async def test_damage_before_the_last_line_is_said_with_its_line(sim_clock: SimClock, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(sim_clock, path) as journal:
        _observe(journal)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"not json", *lines[2:]]))
    with pytest.raises(JournalDamaged, match="Line 2"):
        read_journal(path)


async def test_actions_are_found_by_command_and_the_sites_own_under_none(sim_clock: SimClock) -> None:
    journal = MemoryJournal(sim_clock)
    _observe(journal)
    by_command = actions_by_command(journal.entries())
    assert [entry.action for entry in by_command[str(FIRST)]] == [Action.SLEW_STARTED, Action.SLEW_REACHED]
    assert [entry.cause for entry in by_command[None]] == ["policy: weather"]


async def test_the_movers_of_a_device_are_commands_and_causes_in_order(sim_clock: SimClock) -> None:
    journal = MemoryJournal(sim_clock)
    _observe(journal)
    assert movers_of(MOUNT, journal.entries()) == [str(FIRST), "policy: weather"]


async def test_effects_are_what_a_command_began(sim_clock: SimClock) -> None:
    journal = MemoryJournal(sim_clock)
    _observe(journal)
    assert [entry.action for entry in effects_of(FIRST, journal.entries())] == [Action.SLEW_STARTED]
    assert effects_of(CommandId(UUID(int=99)), journal.entries()) == []


async def test_what_one_command_began_twice_is_found(sim_clock: SimClock) -> None:
    journal = MemoryJournal(sim_clock)
    _observe(journal)
    assert done_twice(journal.entries()) == {}
    _observe(journal)
    assert done_twice(journal.entries()) == {
        (str(FIRST), str(MOUNT), "slew_started"): 2,
        (str(SECOND), str(CAMERA), "exposure_started"): 2,
    }


async def test_the_steps_of_a_pattern_are_not_the_same_action_twice(sim_clock: SimClock) -> None:
    journal = MemoryJournal(sim_clock)
    for step in range(3):
        journal.record(MOUNT, Action.OFFSET_STARTED, Order(FIRST), {"step": step})
    assert done_twice(journal.entries()) == {}
    journal.record(MOUNT, Action.OFFSET_STARTED, Order(FIRST), {"step": 1})
    assert done_twice(journal.entries()) == {(str(FIRST), str(MOUNT), "offset_started"): 2}


def test_an_order_without_command_names_its_cause() -> None:
    with pytest.raises(ValueError, match="cause"):
        Order()
