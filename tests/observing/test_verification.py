"""What has arrived is verified, whatever else fails, and nothing is said of a file that is not known of it."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from skygw.errors import NotFound, RoutingUnavailable, StorageFailed
from skygw.fits.finding import FitsFinding
from skygw.fits.supervisor import HelperAway
from skygw.ids import AssetUid, InstallId, UploadUid
from skygw.observing.byte_store import ContentKey
from skygw.observing.verification import LOOK_EVERY_S, Arrived, Verifier

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def arrived(nth: int = 0, *, must_be_fits: bool = True, known: FitsFinding | None = None) -> Arrived:
    return Arrived(
        uid=AssetUid(uuid4()),
        install_id=InstallId(uuid4()),
        content=ContentKey("0" * 64, nth + 1),
        upload=UploadUid(uuid4()),
        must_be_fits=must_be_fits,
        arrived_at=NOON + timedelta(seconds=nth),
        known=known,
    )


@dataclass
class Rooms:
    """All that a verifier talks to. What is in `trouble` is raised, once for each time it stands there."""

    waiting: list[Arrived]
    trouble: dict[str, list[Exception]] = field(default_factory=dict)
    finds: FitsFinding = field(default_factory=lambda: FitsFinding(None))
    settled: dict[AssetUid, FitsFinding | None] = field(default_factory=dict)
    wanted_again: list[AssetUid] = field(default_factory=list)
    did: list[str] = field(default_factory=list)

    def _does(self, what: str) -> None:
        self.did.append(what)
        if self.trouble.get(what):
            raise self.trouble[what].pop(0)

    async def arrived(self, *, after: Arrived | None, limit: int) -> Sequence[Arrived]:
        self._does("list")
        later = [each for each in self.waiting if after is None or each.arrived_at > after.arrived_at]
        return [each for each in later if each.uid not in self.settled][:limit]

    async def settle(self, asset: Arrived, finding: FitsFinding | None) -> bool:
        self._does("settle")
        is_new = asset.uid not in self.settled
        self.settled[asset.uid] = finding
        return is_new

    async def lost(self, asset: Arrived, reason: str) -> None:
        self.wanted_again.append(asset.uid)
        self.waiting.remove(asset)

    async def finish(self, part: UploadUid, key: ContentKey) -> None:
        self._does("finish")

    async def holds(self, key: ContentKey) -> bool:
        self._does("holds")
        return True

    @asynccontextmanager
    async def opened(self, key: ContentKey) -> AsyncIterator[int]:
        self._does("open")
        yield 0

    async def examine(self, descriptor: int) -> FitsFinding:
        self._does("examine")
        return self.finds

    def verifier(self) -> Verifier:
        return Verifier(assets=self, contents=self, files=self, examiner=self)


async def test_bytes_are_a_content_before_anybody_looks_at_them() -> None:
    rooms = Rooms([arrived()])
    await rooms.verifier().look()
    assert rooms.did == ["list", "finish", "open", "examine", "settle", "list"]
    assert list(rooms.settled.values()) == [FitsFinding(None)]


async def test_what_is_wrong_with_a_file_is_written_down() -> None:
    rooms = Rooms([arrived()], finds=FitsFinding("It is cut off."))
    await rooms.verifier().look()
    assert list(rooms.settled.values()) == [FitsFinding("It is cut off.")]


@pytest.mark.parametrize(
    "asset", [arrived(must_be_fits=False), arrived(known=FitsFinding(None)), arrived(known=FitsFinding("It is bad."))]
)
async def test_what_need_not_be_looked_at_is_not(asset: Arrived) -> None:
    rooms = Rooms([asset])
    await rooms.verifier().look()
    assert "examine" not in rooms.did
    assert rooms.settled == {asset.uid: asset.known}


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("list", RoutingUnavailable("The database is away.")),
        ("finish", StorageFailed("The disk is away.")),
        ("open", StorageFailed("The disk is away.")),
        ("examine", HelperAway("No process can be started.")),
        ("settle", RoutingUnavailable("The database is away.")),
    ],
)
async def test_what_cannot_be_verified_now_is_verified_later(
    where: str, error: Exception, autojump_clock: MockClock
) -> None:
    asset = arrived()
    rooms = Rooms([asset], trouble={where: [error]})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rooms.verifier().run)
        await trio.sleep(LOOK_EVERY_S / 2)
        assert rooms.settled == {}
        await trio.sleep(LOOK_EVERY_S)
        assert rooms.settled == {asset.uid: FitsFinding(None)}
        nursery.cancel_scope.cancel()


async def test_one_that_cannot_be_verified_holds_up_no_other() -> None:
    poison, *others = [arrived(nth) for nth in range(3)]
    rooms = Rooms([poison, *others], trouble={"finish": [StorageFailed("The disk is away.")]})
    await rooms.verifier().look()
    assert rooms.settled.keys() == {each.uid for each in others}


async def test_bytes_that_are_gone_are_wanted_again(caplog: pytest.LogCaptureFixture) -> None:
    asset = arrived()
    rooms = Rooms([asset], trouble={"finish": [NotFound("These bytes are not here.")]})
    await rooms.verifier().look()
    assert rooms.wanted_again == [asset.uid]
    assert rooms.settled == {}
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "are lost" in record.getMessage()
    caplog.clear()


async def test_a_poke_is_not_lost_while_it_looks(autojump_clock: MockClock) -> None:
    rooms = Rooms([])
    verifier = rooms.verifier()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        rooms.waiting.append(arrived())
        verifier.poke()
        await wait_all_tasks_blocked()
        assert len(rooms.settled) == 1
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()
