"""The latest value of every resource: which one is latest, whose it is, and how much one node can make us hold."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trio

from skygw.ids import Epoch
from skygw.protocol.codec import BadFrame, encode, from_node
from skygw.protocol.node_frames import SnapshotStream
from skygw.protocol.streams import StaleReason, StreamFilter, StreamName
from skygw.telemetry import retained as room
from skygw.telemetry.audience import Want
from skygw.telemetry.positions import Versions
from skygw.telemetry.retained import RetainedValues
from tests.fakes.moments import NOW
from tests.fakes.telemetry_rooms import Site, snapshot

if TYPE_CHECKING:
    from skygw.telemetry.value import Value

DEVICE = StreamName.DEVICE_SNAPSHOT


class Kept:
    """Values, and what was told of them."""

    def __init__(self) -> None:
        self.changed: list[Value] = []
        self.unchanged: list[Value] = []
        self.values = RetainedValues(Versions(1), changed=self.changed.append, unchanged=self.unchanged.append)


@pytest.fixture
async def kept() -> Kept:
    return Kept()


@pytest.mark.parametrize(
    ("held", "offered", "is_newer", "refused"),
    [
        ((1, 1), (1, 2), True, None),
        ((1, 2), (1, 1), False, "out_of_order"),
        ((1, 2), (1, 2), False, "out_of_order"),
        ((1, 900), (2, 1), True, None),
        ((2, 1), (1, 900), False, None),
    ],
)
async def test_the_newest_is_told_by_epoch_and_then_by_live_seq_and_who_counts_backwards_is_told(
    kept: Kept, held: tuple[int, int], offered: tuple[int, int], refused: str | None, *, is_newer: bool
) -> None:
    site = Site()
    mount = site.device()
    assert kept.values.offer(site, Epoch(held[0]), snapshot(mount, held[1], it="held")) is None
    answer = kept.values.offer(site, Epoch(offered[0]), snapshot(mount, offered[1], it="offered"))
    assert (answer and answer.reason) == refused
    (value,) = kept.values.of(site.install_id)
    assert value.order == (offered if is_newer else held)
    assert ("offered" in value.data) is is_newer
    assert len(kept.changed) == 1 + is_newer


async def test_a_snapshot_that_comes_twice_is_no_mistake(kept: Kept) -> None:
    site = Site()
    twice = snapshot(site.device(), 7)
    assert [kept.values.offer(site, Epoch(1), twice) for _ in range(2)] == [None, None]
    assert (len(kept.changed), kept.unchanged) == (1, [])


@pytest.mark.parametrize("data", [{"pad": "x" * 65_000}, {"pad": "ü" * 32_300}, {"rows": [0] * 9_990}])
async def test_what_could_not_be_told_to_another_node_is_refused(kept: Kept, data: dict[str, Any]) -> None:
    site = Site()
    frame = snapshot(site.device(), 1, **data)
    assert not isinstance(from_node.decode(encode(frame))[0], BadFrame)
    answer = kept.values.offer(site, Epoch(1), frame)
    assert (answer and answer.reason) == "invalid"


async def test_what_is_held_is_the_text_as_it_came(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.offer(site, Epoch(1), snapshot(mount, 1, max_silence_s=30.0, ra=1.5))
    (value,) = kept.values.of(site.install_id)
    assert (value.uid, value.data, value.observed_at, value.max_silence_s) == (
        mount,
        f'{{"uid":"{mount}","ra":1.5}}',
        NOW,
        30,
    )


async def test_the_same_bytes_again_are_a_sign_of_life_and_no_change(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.offer(site, Epoch(1), snapshot(mount, 1, state="tracking"))
    version = kept.changed[0].version
    kept.values.offer(site, Epoch(1), snapshot(mount, 2, state="tracking"))
    assert len(kept.changed) == 1
    assert kept.unchanged == kept.changed
    assert (kept.changed[0].version, kept.changed[0].order) == (version, (1, 2))


async def test_a_stale_value_said_again_with_the_same_bytes_is_a_change(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.offer(site, Epoch(1), snapshot(mount, 1, state="tracking"))
    value = kept.changed[0]
    kept.values.mark_stale(value, StaleReason.SILENT)
    kept.values.mark_stale(value, StaleReason.NODE_OFFLINE)  # the first reason stays, and is told once
    assert (value.stale, len(kept.changed)) == (StaleReason.SILENT, 2)
    stale_since = value.version
    kept.values.offer(site, Epoch(1), snapshot(mount, 2, state="tracking"))
    assert value.stale is None
    assert value.version > stale_since
    assert len(kept.changed) == 3


async def test_streams_and_installations_do_not_mix(kept: Kept) -> None:
    here, elsewhere = Site(), Site()
    kept.values.offer(here, Epoch(1), snapshot(here.device(), 1))
    kept.values.offer(here, Epoch(1), snapshot(here.telescope(), 2, stream=SnapshotStream.TELESCOPE_SNAPSHOT))
    kept.values.offer(elsewhere, Epoch(1), snapshot(elsewhere.device(), 3))
    assert len(list(kept.values.of(here.install_id))) == 2
    assert len(list(kept.values.of(elsewhere.install_id))) == 1
    assert list(kept.values.of(Site().install_id)) == []


@pytest.mark.parametrize("uid", [None, 7, "", "x" * 36, str(uuid4()).replace("-", "")])
async def test_a_snapshot_of_nothing_is_refused_with_a_sentence(kept: Kept, uid: object) -> None:
    unwanted = kept.values.offer(Site(), Epoch(1), snapshot(uid, 1))
    assert unwanted is not None
    assert unwanted.reason == "invalid"
    assert kept.changed == []


async def test_what_is_not_the_nodes_to_publish_is_refused(kept: Kept) -> None:
    here, elsewhere = Site(), Site()
    foreign = kept.values.offer(here, Epoch(1), snapshot(elsewhere.device(), 1))
    telescope_as_device = kept.values.offer(here, Epoch(1), snapshot(here.telescope(), 1))
    computed = kept.values.offer(here, Epoch(1), snapshot(here.device(), 1, stream=SnapshotStream.INSTRUMENT_SNAPSHOT))
    assert [found and found.reason for found in (foreign, telescope_as_device, computed)] == [
        "not_found",
        "not_found",
        "forbidden",
    ]
    assert kept.changed == []


async def test_a_device_that_is_no_longer_the_nodes_is_refused_though_it_was_known(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.offer(site, Epoch(1), snapshot(mount, 1))
    del site.resources[mount]
    unwanted = kept.values.offer(site, Epoch(2), snapshot(mount, 2))
    assert unwanted is not None
    assert unwanted.reason == "not_found"


async def test_a_device_that_moved_is_its_new_installations_whatever_the_old_one_had_said(kept: Kept) -> None:
    before, after = Site(), Site()
    mount = before.device()
    kept.values.offer(before, Epoch(900), snapshot(mount, 5, at="before"))
    moved = after.resources[mount] = replace(before.resources[mount], install_id=after.install_id)
    kept.values.offer(after, Epoch(1), snapshot(mount, 1, at="after"))
    found = kept.values.find(DEVICE, mount)
    assert found is not None
    assert found.resource is moved
    assert "after" in found.data
    assert list(kept.values.of(before.install_id)) == []


async def test_one_installation_cannot_hold_more_than_its_share(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_RESOURCES_PER_INSTALLATION", 2)
    site, other = Site(), Site()
    taken = [kept.values.offer(site, Epoch(1), snapshot(site.device(), number)) for number in range(3)]
    assert [one and one.reason for one in taken] == [None, None, "quota_exceeded"]
    assert kept.values.offer(other, Epoch(1), snapshot(other.device(), 1)) is None


async def test_one_installation_cannot_fill_the_memory(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_BYTES_PER_INSTALLATION", 1_000)
    site = Site()
    mount, camera = site.device(), site.device("camera")
    assert kept.values.offer(site, Epoch(1), snapshot(mount, 1, text="x" * 700)) is None
    unwanted = kept.values.offer(site, Epoch(1), snapshot(camera, 2, text="x" * 700))
    assert unwanted is not None
    assert unwanted.reason == "quota_exceeded"
    assert kept.values.offer(site, Epoch(1), snapshot(mount, 3, text="y" * 700)) is None  # in place of what was


async def test_the_installation_that_was_silent_longest_gives_way(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_INSTALLATIONS", 2)
    first, second, third = Site(), Site(), Site()
    uids = [site.device() for site in (first, second, third)]
    kept.values.offer(first, Epoch(1), snapshot(uids[0], 1))
    kept.values.offer(second, Epoch(1), snapshot(uids[1], 1))
    kept.values.offer(first, Epoch(1), snapshot(uids[0], 2, n=2))
    kept.values.offer(third, Epoch(1), snapshot(uids[2], 1))
    assert [kept.values.find(DEVICE, uid) is not None for uid in uids] == [True, False, True]
    assert len(kept.values.matching(DEVICE, Want(StreamFilter()))) == 2


async def test_a_restored_value_is_stale_and_as_old_as_it_is(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.restore(
        DEVICE,
        site.resources[mount],
        data=f'{{"uid":"{mount}"}}',
        observed_at=NOW,
        received_at=NOW,
        max_silence_s=30.0,
        order=(4, 17),
        age_s=100.0,
    )
    (value,) = kept.changed
    assert (value.stale, value.received_at, value.observed_at) == (StaleReason.GATEWAY_RESTARTED, NOW, NOW)
    assert 100.0 <= trio.current_time() - value.heard_at < 160.0
    assert value.version > Versions(1).last  # who resumes from before is told that it is stale
    kept.values.offer(site, Epoch(4), snapshot(mount, 17))  # of before the restart, and known
    assert value.stale is StaleReason.GATEWAY_RESTARTED
    kept.values.offer(site, Epoch(5), snapshot(mount, 1))
    assert value.stale is None


async def test_what_was_said_since_the_start_is_not_overwritten_by_what_is_restored(kept: Kept) -> None:
    site = Site()
    mount = site.device()
    kept.values.offer(site, Epoch(5), snapshot(mount, 1, at="now"))
    kept.values.restore(
        DEVICE,
        site.resources[mount],
        data=f'{{"uid":"{mount}","at":"before"}}',
        observed_at=NOW,
        received_at=NOW,
        max_silence_s=None,
        order=(4, 17),
        age_s=100.0,
    )
    (value,) = kept.changed
    assert (value.stale, "now" in value.data) == (None, True)


async def test_what_the_hub_itself_says_of_an_installation_takes_nothing_of_its_share(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_RESOURCES_PER_INSTALLATION", 1)
    monkeypatch.setattr(room, "MAX_BYTES_PER_INSTALLATION", 1_000)
    site = Site()
    mount = site.device()
    assert kept.values.offer(site, Epoch(1), snapshot(mount, 1, text="x" * 600)) is None
    kept.values.say(StreamName.INSTRUMENT_SNAPSHOT, site.resources[mount], "x" * 600, order=(0, 1))
    assert kept.values.find(StreamName.INSTRUMENT_SNAPSHOT, mount) is not None
    assert kept.values.offer(site, Epoch(1), snapshot(mount, 2, text="y" * 700)) is None


async def test_matching_asks_the_records_and_not_the_payload(kept: Kept) -> None:
    here, elsewhere = Site(), Site()
    mine, theirs = here.device(), elsewhere.device()
    kept.values.offer(here, Epoch(1), snapshot(mine, 1, telescope_uid=str(elsewhere.telescope_uid)))
    kept.values.offer(elsewhere, Epoch(1), snapshot(theirs, 1))
    assert elsewhere.telescope_uid is not None
    found = kept.values.matching(DEVICE, Want(StreamFilter(telescope_uid=(elsewhere.telescope_uid,))))
    assert [value.uid for value in found] == [theirs]
