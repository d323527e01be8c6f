"""A simulated site: the devices of one observatory, and the carrying out of commands on them.

A site does what it is told, each time it is told: remembering command ids is the node client's work, and the
device journal shows whether it did it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import trio

from skygw.ids import CommandId, DeviceUid, TelescopeUid
from skygw.sim.addressing import Addressee, telescope_of
from skygw.sim.blueprint import SiteBlueprint
from skygw.sim.clock import SimClock
from skygw.sim.commands import (
    SAFING,
    CameraExposureAbort,
    CameraExposureStart,
    Command,
    EnclosureClose,
    EnclosureOpen,
    EnclosureStop,
    FilterWheelPositionSet,
    FocuserMove,
    FocuserStop,
    MountOffsetRelative,
    MountPark,
    MountPoint,
    MountStop,
    MountTrack,
    MountUnpark,
    TelescopeSafeShutdown,
    TelescopeStop,
    read_command,
)
from skygw.sim.devices.camera import Camera, FrameRecorder
from skygw.sim.devices.device import Device, DeviceFault, Preempted, Refused, stop_each
from skygw.sim.devices.enclosure import Enclosure
from skygw.sim.devices.filter_wheel import FilterWheel
from skygw.sim.devices.focuser import Focuser
from skygw.sim.devices.mount import Mount
from skygw.sim.devices.weather_sensor import WeatherSensor
from skygw.sim.journal import DeviceJournal, Order
from skygw.sim.proof import prove, prove_rest, shows_movement, shows_rest
from skygw.sim.telescope import Telescope, build_telescope

WEATHER_WATCH_S = 5.0
"""Simulated seconds between two looks of the site's own safety policy at the weather."""

NOT_AT_REST = "The devices were told to stop, and were not read back at rest."

WEATHER_UNSAFE = "weather_unsafe"
WEATHER_UNKNOWN = "weather_unknown"


KEPT = {"readout": "kept"}
DISCARDED = {"readout": "discarded"}
"""What becomes of an exposure that is ended before its frame is stored, also in the middle of its readout."""


def what_is_left(command: dict[str, Any]) -> dict[str, Any]:
    """What a command that was interrupted leaves behind, as its result says it."""
    return DISCARDED if command.get("command_type") == "camera.exposure.start" else {}


class ExecutionStatus(StrEnum):
    """How a command ended, in the words of a command result."""

    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"


@dataclass(frozen=True)
class Execution:
    """The end of one command. `error` is `{code, message, details}`; an empty proof: nothing was touched."""

    status: ExecutionStatus
    result: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=lambda: {"devices": []})
    error: dict[str, Any] | None = None
    canceled: str | None = None
    """`interrupted` if a stop ended it on the way."""


class Site:
    """The devices of one observatory. Only `watch_weather`, if the caller runs it, acts by itself."""

    def __init__(
        self, blueprint: SiteBlueprint, *, clock: SimClock, journal: DeviceJournal, recorder: FrameRecorder
    ) -> None:
        self.blueprint = blueprint
        self.clock = clock
        self.journal = journal
        self.local_control = False
        """Somebody on site has locked the hub out: only safing gets through."""
        self.policy_problem: str | None = None
        """Why the safety policy could not shut the site when it last tried; None once it could."""
        self.telescopes = tuple(
            build_telescope(drawn, blueprint, clock=clock, journal=journal, recorder=recorder)
            for drawn in blueprint.telescopes
        )
        self.enclosure = Enclosure(
            uid=blueprint.enclosure_uid,
            name=f"{blueprint.name} roof",
            clock=clock,
            journal=journal,
            chance=blueprint.chance("enclosure"),
            mounts=[telescope.mount for telescope in self.telescopes],
        )
        self.weather_sensor = WeatherSensor(
            uid=blueprint.weather_sensor_uid,
            name=f"{blueprint.name} weather",
            clock=clock,
            journal=journal,
            chance=blueprint.chance("weather_sensor"),
        )
        self._shared: tuple[Device, ...] = (self.enclosure, self.weather_sensor)
        of_telescopes = (device for telescope in self.telescopes for device in telescope.devices)
        self.devices: dict[DeviceUid, Device] = {device.uid: device for device in (*self._shared, *of_telescopes)}
        self._closing_for_safety = trio.Lock()
        self.why_shut: Callable[[], str | None] = self.sensor_says
        """Why the roof must not be open, in one word, as whoever runs it knows the weather; None if it may be."""

    def snapshot_of(self, device: Device) -> dict[str, Any]:
        """What a device says of itself and whose it is. Raises `DeviceFault` if it does not answer."""
        telescope = telescope_of(device.uid, self.telescopes)
        if device is self.enclosure and self.blueprint.telescope_runs_roof:
            (telescope,) = self.telescopes
        return {
            **device.snapshot(),
            "telescope_uid": None if telescope is None else str(telescope.uid),
            "observatory_uid": str(self.blueprint.observatory_uid),
        }

    async def execute(
        self,
        command: dict[str, Any],
        command_id: CommandId,
        *,
        telescope_uid: TelescopeUid | None = None,
        device_uid: DeviceUid | None = None,
    ) -> Execution:
        """Carry one command out to its end and prove it; problems are in the `Execution`, not raised.

        Cancelling stops the hardware where it is, journals that under the command, and lets `Cancelled`
        through: ask `prove_for` afterwards what the devices do. A cancel that comes when everything has
        happened is too late, and the `Execution` is returned as if there were none.

        Safing interrupts what moves before the first checkpoint; with neither device nor telescope named it
        stops every device of its kind.
        """
        addressee = self._addressee(telescope_uid, device_uid)
        try:
            asked = read_command(command)
            touched = addressee.touched_by(asked)
            self._refuse_if_locked_out(asked)
        except Refused as refusal:
            return _rejected(refusal)
        try:
            result = await self._carry_out(asked, Order(command_id), addressee)
        except Refused as refusal:
            return _rejected(refusal)
        except DeviceFault as fault:
            return Execution(
                ExecutionStatus.FAILED,
                proof=await prove(touched, self.clock, to_the_end=True),
                error={"code": "internal", "message": str(fault), "details": {"reason": "device_fault"}},
            )
        except Preempted as preempted:
            by = preempted.by.command_id
            proof = await prove_rest(touched, self.clock, command_id=command_id, to_the_end=True)
            stands = shows_rest(proof)
            return Execution(
                ExecutionStatus.CANCELED if stands else ExecutionStatus.FAILED,
                result=what_is_left(command),
                proof=proof,
                error={
                    "code": "conflict",
                    "message": str(preempted) if stands else f"{preempted} {NOT_AT_REST}",
                    "details": {
                        "reason": "stopped" if stands else "not_at_rest",
                        "by": None if by is None else str(by),
                    },
                },
                canceled="interrupted" if stands else None,
            )
        if isinstance(asked, SAFING):
            return await self._end_of_a_stop(touched, command_id, result)
        return Execution(
            ExecutionStatus.COMPLETED, result=result, proof=await prove(touched, self.clock, to_the_end=True)
        )

    async def _end_of_a_stop(
        self, touched: Sequence[Device], command_id: CommandId, result: dict[str, Any]
    ) -> Execution:
        proof = await prove_rest(touched, self.clock, command_id=command_id, to_the_end=True)
        if shows_movement(proof):
            return Execution(
                ExecutionStatus.FAILED,
                proof=proof,
                error={"code": "internal", "message": NOT_AT_REST, "details": {"reason": "not_at_rest"}},
            )
        return Execution(ExecutionStatus.COMPLETED, result=result, proof=proof)

    async def prove_for(
        self,
        command: dict[str, Any],
        command_id: CommandId,
        *,
        telescope_uid: TelescopeUid | None = None,
        device_uid: DeviceUid | None = None,
    ) -> dict[str, Any]:
        """Read back whether the devices that this command is about stand: the proof after `execute` was cancelled.

        Raises `Refused` if the command or the device is none of this site's.
        """
        touched = self._addressee(telescope_uid, device_uid).touched_by(read_command(command))
        return await prove_rest(touched, self.clock, command_id=command_id)

    async def safe_shutdown(self, order: Order, telescopes: Sequence[Telescope]) -> dict[str, Any]:
        """Stop these telescopes at once, then park them, then close the roof if no other one needs it open.

        The roof stays open over a mount that did not park, and over telescopes that still observe: the last
        one to shut down closes it. Raises the `DeviceFault`, `Refused` or `Preempted` of the first park that
        went wrong, once the other mounts have parked, or that of the roof, or else of a stop.
        """
        problems: list[DeviceFault | Preempted | Refused] = []
        not_stopped: DeviceFault | None = None
        try:
            stop_each([device for telescope in telescopes for device in telescope.devices], order)
        except DeviceFault as fault:
            not_stopped = fault  # no reason to leave a mount unparked, or the roof open

        async def park(telescope: Telescope) -> None:
            try:
                await telescope.mount.park(order)
            except (DeviceFault, Preempted, Refused) as problem:
                problems.append(problem)

        async with trio.open_nursery() as nursery:
            for telescope in telescopes:
                nursery.start_soon(park, telescope)
        if problems:
            raise problems[0]
        in_the_way = self.enclosure.unparked()
        for telescope in telescopes:
            if telescope.mount in in_the_way:
                raise DeviceFault(f"{telescope.mount.name} does not say that it is parked; the roof stays open.")
        if not in_the_way:
            async with self._closing_for_safety:
                if not self.enclosure.is_closed:
                    self.enclosure.stop(order)
                    await self.enclosure.close(order)
        if not_stopped is not None:
            raise not_stopped
        if in_the_way:
            return {"enclosure": "left_open", "because": [mount.name for mount in in_the_way]}
        return {"enclosure": "closed"}

    async def watch_weather(self) -> None:
        """The policy of a site whose sensor is wired to its roof: shut when it rains or the sensor is silent.

        Never returns. Tries again at the next look if a shutdown failed or was stopped.
        """
        while True:
            if self.sensor_says() is not None and not self.is_shut(self.telescopes):
                await self.shut_by_policy("weather", self.telescopes)
            await self.clock.sleep(WEATHER_WATCH_S)

    async def shut_by_policy(self, cause: str, telescopes: Sequence[Telescope]) -> None:
        """`safe_shutdown` on the site's own account; what goes wrong is kept in `policy_problem`."""
        try:
            await self.safe_shutdown(Order(cause=f"policy: {cause}"), telescopes)
            self.policy_problem = None
        except (DeviceFault, Preempted, Refused) as problem:
            self.policy_problem = str(problem)

    def sensor_says(self) -> str | None:
        """Why nothing may be open, by the sensor itself."""
        try:
            return WEATHER_UNSAFE if self.weather_sensor.snapshot()["is_raining"] else None
        except DeviceFault:
            return WEATHER_UNKNOWN

    def is_shut(self, telescopes: Sequence[Telescope]) -> bool:
        """Whether these are parked, and the roof is closed or left open for another one."""
        in_the_way = self.enclosure.unparked()
        if any(telescope.mount in in_the_way for telescope in telescopes):
            return False
        return self.enclosure.is_closed or bool(in_the_way)

    def _addressee(self, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None) -> Addressee:
        return Addressee(self.telescopes, self._shared, telescope_uid, device_uid)

    def _refuse_if_locked_out(self, asked: Command) -> None:
        if self.local_control and not isinstance(asked, SAFING):
            raise Refused("Somebody on site has locked remote control out.", code="conflict", reason="local_control")

    async def _carry_out(self, asked: Command, order: Order, addressee: Addressee) -> dict[str, Any]:
        match asked:
            case MountStop():
                stop_each(addressee.each(Mount), order)
            case CameraExposureAbort():
                discards = any(camera.takes_a_frame for camera in addressee.each(Camera))
                stop_each(addressee.each(Camera), order)
                return DISCARDED if discards else {}
            case FocuserStop():
                stop_each(addressee.each(Focuser), order)
            case EnclosureStop():
                stop_each(addressee.each(Enclosure), order)
            case TelescopeStop():
                stop_each([device for telescope in addressee.meant() for device in telescope.devices], order)
            case TelescopeSafeShutdown():
                return await self.safe_shutdown(order, addressee.meant())
            case MountPoint():
                await addressee.one(Mount).point(order, asked.target.position())
            case MountTrack():
                await addressee.one(Mount).track(order, asked.target.position(), asked.offset_pattern)
            case MountOffsetRelative():
                await addressee.one(Mount).offset_relative(order, delta_arcsec=asked.delta_arcsec, axis=asked.axis)
            case MountPark():
                await addressee.one(Mount).park(order)
            case MountUnpark():
                await addressee.one(Mount).unpark(order)
            case CameraExposureStart():
                return await self._expose(asked, order, addressee.one(Camera))
            case FilterWheelPositionSet():
                await addressee.one(FilterWheel).turn_to(order, asked.position)
            case FocuserMove():
                await addressee.one(Focuser).move(order, asked.position)
            case EnclosureOpen():
                await self._open(order)
            case EnclosureClose():
                await self.enclosure.close(order)
        return {}

    async def _open(self, order: Order) -> None:
        if self.why_shut() is not None:
            raise Refused(
                "The roof stays closed: it rains, or the weather is not known.",
                code="conflict",
                reason="interlock_active",
            )
        await self.enclosure.open(order)

    async def _expose(self, asked: CameraExposureStart, order: Order, camera: Camera) -> dict[str, Any]:
        telescope = telescope_of(camera.uid, self.telescopes)
        slot: int | None = None
        if asked.filter_id is not None and telescope is not None:
            slot = telescope.filter_wheel.slot_of(asked.filter_id)

        async def turn_wheel() -> None:
            if slot is not None and telescope is not None:
                await telescope.filter_wheel.turn_to(order, slot)

        frame = await camera.expose(order, duration_s=asked.duration_s, binning=asked.binning, before=turn_wheel)
        return {**asdict(frame), **KEPT}


def _rejected(refusal: Refused) -> Execution:
    return Execution(
        ExecutionStatus.REJECTED,
        error={
            "code": refusal.code,
            "message": str(refusal),
            "details": {"reason": refusal.reason, **refusal.details},
        },
    )
