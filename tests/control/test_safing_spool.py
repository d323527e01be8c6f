"""Stops are on disk until the ledger has them, whatever becomes of their process and of the disk."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from pydantic import TypeAdapter

from skygw.control.ledger import CommandRecord, CommandState, Transition
from skygw.control.safing_spool import ENDED, ENDED_UNWRITTEN, SafingSpool
from skygw.errors import Hop
from skygw.ids import Epoch
from skygw.protocol.gateway_frames import EventCommand, QueryCommand
from tests.fakes.rooms import Gateway, Site, command_order

S = CommandState
STOP = {"command_type": "mount.stop", "note": "Höhe\n"}


def a_stop(site: Site | None = None) -> CommandRecord:
    site = site or Site()
    order = command_order(site, STOP, actor={"uid": "7", "kind": "user"})
    return order.record(site.install_id, Epoch(3), left_s=60)


def said(state: CommandState) -> Transition:
    return Transition(datetime.now(UTC), state, Hop.GATEWAY)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - a file has no events
            await trio.sleep(0.01)


def written(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.jsonl"))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def crash(spool: SafingSpool) -> None:
    """What the kernel does at a kill: the lock goes, the file stays. A write that is under way would hold the lock."""
    with spool._writing:
        assert spool._file is not None
        os.close(spool._file)
        spool._file = None


def states(record: CommandRecord) -> list[CommandState]:
    return [step.state for step in record.transitions]


async def test_what_a_killed_process_had_sent_is_taken_over_as_far_as_it_is_known(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    spool = SafingSpool(tmp_path / "spool")
    nursery.start_soon(spool.run)
    waiting, sent, unsent, recorded = a_stop(), a_stop(), a_stop(), a_stop()
    for record in (waiting, sent, unsent, recorded):
        spool.keep(record)
    spool.step(sent.command_id, said(S.WRITTEN))
    spool.step(unsent.command_id, said(S.EXPIRED))
    spool.step(a_stop().command_id, said(S.WRITTEN))
    spool.done(recorded)
    await until(lambda: "done" in written(tmp_path / "spool"))
    crash(spool)

    found = SafingSpool(tmp_path / "spool").take_over()
    assert [record.command_id for record in found] == [one.command_id for one in (waiting, sent, unsent)]
    assert all(record.recorded_late for record in found)
    assert [states(record) for record in found] == [
        [S.RECEIVED, S.WRITTEN, S.UNKNOWN],
        [S.RECEIVED, S.WRITTEN, S.UNKNOWN],
        [S.RECEIVED, S.EXPIRED],
    ]
    assert [step.detail for step in found[0].transitions] == [None, ENDED_UNWRITTEN, ENDED]
    assert (found[1].identity, found[1].actor, found[1].epoch) == (sent.identity, sent.actor, 3)
    assert found[1].transitions[0] == sent.transitions[0]


async def test_a_stop_that_was_never_written_and_is_sent_again_is_two_lives(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    spool, site = SafingSpool(tmp_path), Site()
    nursery.start_soon(spool.run)
    first = a_stop(site)
    again = a_stop(site)
    again.command_id, again.created_at = first.command_id, first.created_at + timedelta(seconds=1)
    spool.keep(first)
    spool.step(first.command_id, said(S.EXPIRED))
    spool.keep(again)
    spool.step(first.command_id, said(S.WRITTEN))
    await until(lambda: written(tmp_path).count("step") == 2)
    crash(spool)
    assert [states(record) for record in SafingSpool(tmp_path).take_over()] == [
        [S.RECEIVED, S.EXPIRED],
        [S.RECEIVED, S.WRITTEN, S.UNKNOWN],
    ]


async def test_nothing_is_left_on_the_disk_of_what_the_ledger_has(tmp_path: Path, nursery: trio.Nursery) -> None:
    spool = SafingSpool(tmp_path)
    nursery.start_soon(spool.run)
    record = a_stop()
    spool.keep(record)
    await until(lambda: "kept" in written(tmp_path))
    spool.done(record)
    await until(lambda: written(tmp_path) == "")
    spool.keep(record)
    await until(lambda: "kept" in written(tmp_path))
    crash(spool)

    heir = SafingSpool(tmp_path)
    [left] = heir.take_over()
    heir.done(left)
    assert files(tmp_path) == []


async def test_the_file_of_a_process_that_lives_is_left_alone(tmp_path: Path, nursery: trio.Nursery) -> None:
    spool = SafingSpool(tmp_path)
    nursery.start_soon(spool.run)
    spool.keep(a_stop())
    await until(lambda: "kept" in written(tmp_path))
    assert SafingSpool(tmp_path).take_over() == []
    crash(spool)
    heir, late = SafingSpool(tmp_path), SafingSpool(tmp_path)
    assert len(heir.take_over()) == 1
    assert late.take_over() == []
    heir.close()  # before the ledger had it
    assert len(late.take_over()) == 1


async def test_torn_lines_are_passed_over_and_said(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    spool = SafingSpool(tmp_path)
    nursery.start_soon(spool.run)
    spool.keep(a_stop())
    await until(lambda: "kept" in written(tmp_path))
    crash(spool)
    [path] = files(tmp_path)
    good = path.read_bytes()
    path.write_bytes(b"\xff\n[]\n{}\n7\n" + good + good[:-9])
    assert len(SafingSpool(tmp_path).take_over()) == 1
    assert [vars(line)["lines"] for line in caplog.records if "torn" in line.message] == [5]


async def test_a_disk_that_fails_is_said_once_and_has_everything_when_it_is_back(
    tmp_path: Path,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("skygw.control.safing_spool.RETRY_S", 0.05)
    folder = tmp_path / "spool"
    folder.touch()  # no folder can be made here
    spool = SafingSpool(folder)
    nursery.start_soon(spool.run)
    records = [a_stop() for _ in range(3)]
    for record in records:
        spool.keep(record)
        await until(lambda: len(complaints(caplog)) == 1)
    folder.unlink()
    await until(lambda: written(folder).count("kept") == 3)
    assert len(complaints(caplog)) == 1


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.message for line in caplog.records if line.levelno == logging.WARNING]


async def test_a_disk_that_hangs_delays_neither_a_stop_nor_its_record(tmp_path: Path, nursery: trio.Nursery) -> None:
    spool = SafingSpool(tmp_path)
    hung = spool._path.with_suffix(".new")
    os.mkfifo(hung)  # which nobody reads: whoever opens it to write waits
    gateway, site = Gateway(nursery, spool=spool), Site()
    await nursery.start(gateway.commands.run)
    link = await gateway.connect(site)
    for _ in range(3):
        order = command_order(site, STOP)
        with trio.fail_after(10):
            record, _ = await gateway.commands.submit(order)
            assert (await link.hear_next(EventCommand)).command_id == order.command_id
            await gateway.commands.flush()
        assert gateway.ledger.rows[order.command_id].state is S.WRITTEN
        assert not record.recorded_late
    os.close(os.open(hung, os.O_RDONLY | os.O_NONBLOCK))


async def test_stops_of_before_are_recorded_late_before_nodes_may_come(tmp_path: Path, nursery: trio.Nursery) -> None:
    site, dead = Site(), SafingSpool(tmp_path)
    nursery.start_soon(dead.run)
    stop = a_stop(site)
    dead.keep(stop)
    dead.step(stop.command_id, said(S.WRITTEN))
    await until(lambda: "step" in written(tmp_path))
    crash(dead)

    gateway = Gateway(nursery, spool=SafingSpool(tmp_path))
    await nursery.start(gateway.commands.run)
    row = gateway.ledger.rows[stop.command_id]
    assert (row.state, row.recorded_late) == (S.UNKNOWN, True)
    assert files(tmp_path) == []
    link = await gateway.connect(site, last_epoch=3)
    assert (await link.hear_next(QueryCommand)).command_ids == (stop.command_id,)
    again = await gateway.commands.submit(command_order(site, STOP, command_id=stop.command_id))
    assert again[1], "it is a duplicate"


async def test_a_spool_that_is_full_says_so_once_and_keeps_what_it_has(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    spool = SafingSpool(tmp_path, max_bytes=2_000)
    nursery.start_soon(spool.run)
    records = [a_stop() for _ in range(9)]
    for record in records:
        spool.keep(record)
    await until(lambda: "kept" in written(tmp_path))
    kept = written(tmp_path).count("kept")
    assert 0 < kept < 9
    assert len(complaints(caplog)) == 1
    for record in records:
        spool.done(record)
    await until(lambda: written(tmp_path) == "")
    for record in records * 20:
        spool.keep(record)
        spool.done(record)
    spool.keep(records[0])
    await until(lambda: written(tmp_path).endswith(sole_line(records[0])))
    assert len(written(tmp_path)) <= 2 * 2_000


def sole_line(record: CommandRecord) -> str:
    return TypeAdapter(CommandRecord).dump_json(record).decode() + "}\n"
