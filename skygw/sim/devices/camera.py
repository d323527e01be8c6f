"""A simulated camera: exposures take their time, and each that ends becomes a stored frame."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from math import exp
from random import Random
from typing import Any, ClassVar, Protocol

from skygw.ids import DeviceUid
from skygw.sim.clock import SimClock
from skygw.sim.coordinates import Equatorial
from skygw.sim.devices.device import Device, Refused
from skygw.sim.journal import Action, DeviceJournal, Order
from skygw.sim.seeds import uid_of


@dataclass(frozen=True)
class Exposure:
    """What was exposed, as it goes into the frame. `started_at` is the site's own clock."""

    asset_uid: str
    pointing: Equatorial
    started_at: datetime
    duration_s: float
    binning: int
    filter_name: str | None
    instrument: str
    telescope: str
    temperature_c: float
    frame_number: int


@dataclass(frozen=True)
class StoredFrame:
    """A frame file in the site's store."""

    asset_uid: str
    file_name: str
    size: int
    sha256: str
    content_type: str


class FrameRecorder(Protocol):
    """Turns an exposure into a file of the site."""

    async def record(self, exposure: Exposure) -> StoredFrame:
        """Make and store the frame. Raises `DeviceFault`; whole or not at all, also when cancelled."""
        ...


@dataclass
class _OpenShutter:
    """An exposure under way; times are the clock's elapsed seconds."""

    order: Order
    started_at: float
    ends_at: float


class Camera(Device):
    """Begins warm and cools to its set point. A frame shows where the mount pointed as the shutter opened."""

    device_type: ClassVar[str] = "camera"
    still_fields: ClassVar[tuple[str, ...]] = ("state", "shutter")
    resting_states: ClassVar[frozenset[str]] = frozenset({"idle"})

    def __init__(
        self,
        *,
        uid: DeviceUid,
        name: str,
        clock: SimClock,
        journal: DeviceJournal,
        chance: Random,
        telescope_name: str,
        pointing: Callable[[], Equatorial],
        filter_name: Callable[[], str | None],
        recorder: FrameRecorder,
        readout_s: float = 2.0,
        set_point_c: float = -20.0,
        ambient_c: float = 8.0,
        cooling_s: float = 120.0,
    ) -> None:
        super().__init__(uid=uid, name=name, clock=clock, journal=journal, chance=chance)
        self._telescope_name = telescope_name
        self._pointing = pointing
        self._filter_name = filter_name
        self._recorder = recorder
        self._readout_s = readout_s
        self._set_point_c = set_point_c
        self._ambient_c = ambient_c
        self._cooling_s = cooling_s
        self._shutter: _OpenShutter | None = None
        self._reads_until: float | None = None
        self._binning = 1
        self._last_asset_uid: str | None = None

    @property
    def temperature_c(self) -> float:
        """The true temperature of the chip, on its way down from the ambient one."""
        warmth = exp(-self._clock.elapsed() / self._cooling_s)
        return self._set_point_c + (self._ambient_c - self._set_point_c) * warmth

    @property
    def fraction_done(self) -> float | None:
        """Of the exposure; the readout comes after it."""
        self._catch_up()
        shutter = self._shutter
        if shutter is None or shutter.ends_at <= shutter.started_at:
            return None
        return min(1.0, (self._clock.elapsed() - shutter.started_at) / (shutter.ends_at - shutter.started_at))

    @property
    def seconds_left(self) -> float | None:
        """Until the frame is read out."""
        self._catch_up()
        if self._shutter is not None:
            return self._shutter.ends_at + self._readout_s - self._clock.elapsed()
        return None if self._reads_until is None else self._reads_until - self._clock.elapsed()

    @property
    def takes_a_frame(self) -> bool:
        """Whether a stop would discard one."""
        self._catch_up()
        return self._shutter is not None or self._reads_until is not None

    async def expose(
        self,
        order: Order,
        *,
        duration_s: float,
        binning: int,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> StoredFrame:
        """Expose, read out and store one frame; after the readout a stop is too late and the frame stays.

        `before` (turning the filter wheel) runs while the camera is already held: it never happens for an
        exposure that is refused, nor under another one.
        """
        with self._working(order) as work:
            await self._hang_if_stuck(work)
            self._catch_up()
            if self._shutter is not None:
                raise Refused(f"{self.name} still exposes: a stop was ignored.", code="conflict", reason="device_busy")
            if before is not None:
                await before()
                await work.until(0)
            self._binning = binning
            started_at = self._clock.elapsed()
            lasts_s = duration_s * self.faults.slow
            self._shutter = shutter = _OpenShutter(order, started_at, started_at + lasts_s)
            self._record(order, Action.SHUTTER_OPENED)
            number = self._record(order, Action.EXPOSURE_STARTED, duration_s=duration_s, binning=binning)
            exposure = Exposure(
                asset_uid=str(uid_of(self.uid, "frame", number)),
                pointing=self._pointing(),
                started_at=self._clock.now(),
                duration_s=duration_s,
                binning=binning,
                filter_name=self._filter_name(),
                instrument=self.name,
                telescope=self._telescope_name,
                temperature_c=self.temperature_c,
                frame_number=number,
            )
            await self._pass_time(work, lasts_s)
            if self._shutter is shutter:
                self._end_exposure(shutter)
            self._reads_until = self._clock.elapsed() + self._readout_s
            self._record(order, Action.READOUT, expected_s=self._readout_s)
            await work.until(self._clock.trio_seconds(self._readout_s))
            self._reads_until = None
            frame = await self._recorder.record(exposure)
            self._last_asset_uid = frame.asset_uid
            self._record(order, Action.FRAME_STORED, asset_uid=frame.asset_uid, size=frame.size, sha256=frame.sha256)
            await self._hang_if_silent(work)
            return frame

    def _end_exposure(self, shutter: _OpenShutter) -> None:
        self._shutter = None
        self._record(shutter.order, Action.EXPOSURE_ENDED)
        self._record(shutter.order, Action.SHUTTER_CLOSED)

    def _catch_up(self) -> None:
        """Book the end of an exposure or readout that nobody waits for any more (its stop was ignored)."""
        if self._shutter is not None and self._clock.elapsed() >= self._shutter.ends_at:
            self._end_exposure(self._shutter)
        if self._reads_until is not None and self._clock.elapsed() >= self._reads_until:
            self._reads_until = None

    def _halt(self, order: Order) -> None:
        self._catch_up()
        shutter, self._shutter = self._shutter, None
        reads_until, self._reads_until = self._reads_until, None
        if shutter is not None:
            self._record(order, Action.EXPOSURE_ABORTED, exposed_s=self._clock.elapsed() - shutter.started_at)
            self._record(order, Action.SHUTTER_CLOSED)
        elif reads_until is not None:
            self._record(order, Action.EXPOSURE_ABORTED, during="readout")
        else:
            self._record(order, Action.STOP_RECEIVED)

    def _state(self) -> dict[str, Any]:
        self._catch_up()
        state = "exposing" if self._shutter else "reading" if self._reads_until is not None else "idle"
        return {
            "state": state,
            "shutter": "open" if self._shutter else "closed",
            "binning": self._binning,
            "temperature_c": round(self.temperature_c, 2),
            "set_point_c": self._set_point_c,
            "last_asset_uid": self._last_asset_uid,
        }
