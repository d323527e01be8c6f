"""What `serve` asks of its process before it serves."""

import gc
import logging
import resource
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from skygw.cli.checks import Verdict, check_files
from skygw.cli.process import (
    AT_THE_LATEST_S,
    LOOK_EVERY_S,
    collect_in_calm,
    collections_by_hand,
    file_limit,
    raise_file_limit,
)

Clock = trio.testing.MockClock


@pytest.fixture
def files() -> Iterator[int]:
    """The most open files this process may ask for; the limit it had is put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])


def much_was_made() -> None:
    gc.collect(1)


def test_as_many_files_may_be_open_as_the_system_allows(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, files), files))
    raise_file_limit(16)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (files, files)


def test_a_system_that_allows_too_few_files_is_complained_about(files: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        limit = raise_file_limit(files)
    assert not limit.is_enough
    assert [record.getMessage() for record in caplog.records] == ["too few open files are allowed"]


def test_a_system_that_allows_enough_files_is_not_complained_about(
    files: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert raise_file_limit(16).is_enough
    assert caplog.records == []


def test_the_doctor_says_when_too_few_files_are_allowed() -> None:
    assert check_files(16).verdict is Verdict.OK
    check = check_files(file_limit(0).allowed + 10_000_000)
    assert check.verdict is Verdict.WARNING
    assert "SKYGW_MAX_CONNECTIONS" in check.advice


def test_python_looks_through_old_objects_by_itself_again_afterwards() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with collections_by_hand():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[2] > 1_000_000
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


async def test_old_objects_are_looked_through_when_the_storm_is_over(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(collect_in_calm)
    await trio.sleep(LOOK_EVERY_S / 2)
    before = full_collections()
    for _ in range(3):
        much_was_made()
        await trio.sleep(LOOK_EVERY_S)
        assert full_collections() == before
    await trio.sleep(LOOK_EVERY_S)
    assert full_collections() == before + 1
    await trio.sleep(10 * LOOK_EVERY_S)
    assert full_collections() == before + 1


async def test_a_storm_that_does_not_end_puts_it_off_for_a_while_only(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    nursery.start_soon(collect_in_calm)
    await trio.sleep(LOOK_EVERY_S / 2)
    before = full_collections()
    for _ in range(int(AT_THE_LATEST_S / LOOK_EVERY_S) + 1):
        much_was_made()
        await trio.sleep(LOOK_EVERY_S)
    assert full_collections() == before + 1
