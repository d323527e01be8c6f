"""The frames of a site are found by asset uid, bounded, whole, and survive a restart."""

import os
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from skygw.sim.blueprint import draw_site
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import DeviceFault
from skygw.sim.frame_store import FrameNotFound, FrameStore, SkyRecorder
from skygw.sim.installation import ExecutionStatus, Site
from skygw.sim.journal import MemoryJournal, Order
from skygw.sim.sky import M13, Sensor, photograph
from tests.sim.conftest import CommandIds


def test_a_frame_is_read_in_pieces_by_offset_and_length(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    content = bytes(range(256)) * 10
    frame = store.put("a", content)
    pieces = [store.read("a", offset=offset, length=1000) for offset in range(0, frame.size, 1000)]
    assert b"".join(pieces) == content
    assert (frame.size, frame.sha256) == (2560, sha256(content).hexdigest())
    assert store.read("a", offset=5000, length=10) == b""


def test_an_unknown_frame_and_a_negative_offset_are_errors(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    store.put("a", b"frame")
    with pytest.raises(FrameNotFound):
        store.read("../a")
    with pytest.raises(ValueError, match="offset"):
        store.read("a", offset=-1)


def test_the_oldest_frames_go_when_there_are_too_many(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, most_frames=2)
    for name in ("a", "b", "c"):
        store.put(name, b"frame")
    assert [frame.asset_uid for frame in store.frames()] == ["b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.fits", "c.fits"]
    with pytest.raises(FrameNotFound):
        store.read("a")


def test_the_oldest_frames_go_when_they_are_too_big_and_the_newest_always_stays(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, most_bytes=100)
    store.put("a", bytes(60))
    store.put("b", bytes(60))
    assert [frame.asset_uid for frame in store.frames()] == ["b"]
    store.put("c", bytes(1000))
    assert [frame.asset_uid for frame in store.frames()] == ["c"]


def test_a_restart_finds_the_frames_again_in_their_order_and_clears_what_was_half_written(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    kept = [store.put(name, name.encode() * 100) for name in ("b", "a", "c")]
    for age, frame in enumerate(reversed(kept)):
        os.utime(tmp_path / frame.file_name, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "d.part").write_bytes(b"half")
    assert FrameStore(tmp_path).frames() == kept
    assert not (tmp_path / "d.part").exists()


def test_a_full_disk_stores_nothing_and_keeps_what_it_has(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    store.put("a", b"frame")
    store.full = True
    with pytest.raises(DeviceFault, match="full"):
        store.put("b", b"frame")
    assert [frame.asset_uid for frame in store.frames()] == ["a"]


async def test_an_exposure_of_m13_is_real_sky_with_the_digest_it_was_announced_with(
    tmp_path: Path, command_id: CommandIds
) -> None:
    clock = SimClock(scale=100_000)
    store = FrameStore(tmp_path)
    recorder = SkyRecorder(store, sensor=Sensor(width=64, height=64))
    site = Site(draw_site("sky", 1), clock=clock, journal=MemoryJournal(clock), recorder=recorder)
    await site.telescopes[0].mount.unpark(Order(cause="test"))
    await site.telescopes[0].mount.track(Order(cause="test"), M13)
    command = {"command_type": "camera.exposure.start", "duration_s": 60, "binning": 1, "filter_id": 3}
    execution = await site.execute(command, command_id(1))

    content = store.read(execution.result["asset_uid"])
    assert sha256(content).hexdigest() == execution.result["sha256"]
    assert len(content) == execution.result["size"]
    with fits.open(BytesIO(content), checksum=True) as hdus:
        hdus.verify("exception")
        assert np.array_equal(hdus[0].data, photograph().pixels[118:182, 118:182])
        assert (hdus[0].header["FILTER"], hdus[0].header["EXPTIME"]) == ("V", 60)


async def test_an_exposure_on_a_full_disk_fails_and_the_next_one_works_again(
    tmp_path: Path, command_id: CommandIds
) -> None:
    clock = SimClock(scale=100_000)
    store = FrameStore(tmp_path)
    site = Site(draw_site("sky", 1), clock=clock, journal=MemoryJournal(clock), recorder=SkyRecorder(store))
    command = {"command_type": "camera.exposure.start", "duration_s": 1, "binning": 1}
    store.full = True
    failed = await site.execute(command, command_id(1))
    store.full = False
    worked = await site.execute(command, command_id(2))
    assert failed.status is ExecutionStatus.FAILED
    assert failed.error is not None
    assert "full" in failed.error["message"]
    assert [frame.asset_uid for frame in store.frames()] == [worked.result["asset_uid"]]
