"""The frames on the disk of one site: found by asset uid, bounded, the oldest dropped first."""

import os
from hashlib import sha256
from pathlib import Path
from threading import Lock

import trio

from skygw.sim.devices.camera import Exposure, StoredFrame
from skygw.sim.devices.device import DeviceFault
from skygw.sim.sky import Sensor, fits_frame

_SUFFIX = ".fits"
_CONTENT_TYPE = "image/fits"


class FrameNotFound(Exception):
    """No such frame, or no longer."""


class FrameStore:
    """A directory of frames. Its methods block on the disk and may be called from several threads.

    Holds at most `most_frames` and `most_bytes`; the newest frame always stays, even alone above the bytes.
    """

    def __init__(self, directory: Path, *, most_frames: int = 100, most_bytes: int = 64 * 1024 * 1024) -> None:
        """Open or make the directory and take up what it holds."""
        self.full = False
        """A scenario's fault: while it is set nothing more can be stored."""
        self._directory = directory
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._frames: dict[str, StoredFrame] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob("*.part"):
            left_over.unlink()
        for path in sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns):
            content = path.read_bytes()
            self._frames[path.stem] = _described(path.stem, content)

    def frames(self) -> list[StoredFrame]:
        """What is held, oldest first."""
        with self._lock:
            return list(self._frames.values())

    def frame(self, asset_uid: str) -> StoredFrame:
        """The size and digest of a frame. Raises `FrameNotFound`."""
        with self._lock:
            found = self._frames.get(asset_uid)
        if found is None:
            raise FrameNotFound(f"This site holds no frame {asset_uid}.")
        return found

    def read(self, asset_uid: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a frame: fewer than `length` at its end. Raises `FrameNotFound`, `ValueError`."""
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("A frame is read from an offset and for a length of zero or more.")
        found = self.frame(asset_uid)
        try:
            with self._path(found.asset_uid).open("rb") as file:
                file.seek(offset)
                return file.read(found.size if length is None else length)
        except FileNotFoundError as error:
            raise FrameNotFound(f"The frame {asset_uid} was dropped to make room.") from error

    def put(self, asset_uid: str, content: bytes) -> StoredFrame:
        """Store a frame whole or not at all. Raises `DeviceFault` on a full disk."""
        if self.full:
            raise DeviceFault("The site's disk is full; the frame is lost.")
        path = self._path(asset_uid)
        part = path.with_suffix(".part")
        try:
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise DeviceFault(f"The frame could not be stored: {os.strerror(error.errno or 0)}.") from error
        frame = _described(asset_uid, content)
        with self._lock:
            self._frames.pop(asset_uid, None)
            self._frames[asset_uid] = frame
            self._drop_oldest()
        return frame

    def _drop_oldest(self) -> None:
        while len(self._frames) > 1 and (
            len(self._frames) > self._most_frames
            or sum(frame.size for frame in self._frames.values()) > self._most_bytes
        ):
            oldest = next(iter(self._frames))
            del self._frames[oldest]
            self._path(oldest).unlink(missing_ok=True)

    def _path(self, asset_uid: str) -> Path:
        return self._directory / f"{asset_uid}{_SUFFIX}"


class SkyRecorder:
    """Puts real sky into a site's frame store, in a worker thread so that the loop goes on."""

    def __init__(self, store: FrameStore, *, sensor: Sensor | None = None) -> None:
        self.store = store
        self._sensor = sensor or Sensor()

    async def record(self, exposure: Exposure) -> StoredFrame:
        """Make and store the frame; once begun it is finished even if the caller is cancelled."""
        return await trio.to_thread.run_sync(self._make, exposure)

    def _make(self, exposure: Exposure) -> StoredFrame:
        return self.store.put(exposure.asset_uid, fits_frame(exposure, sensor=self._sensor))


def _described(asset_uid: str, content: bytes) -> StoredFrame:
    return StoredFrame(
        asset_uid=asset_uid,
        file_name=f"{asset_uid}{_SUFFIX}",
        size=len(content),
        sha256=sha256(content).hexdigest(),
        content_type=_CONTENT_TYPE,
    )
