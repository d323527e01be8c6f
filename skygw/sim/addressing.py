"""Which devices of a site a command is meant for, from the uids it carries or leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from skygw.ids import DeviceUid, TelescopeUid
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
    TelescopeSafeShutdown,
    TelescopeStop,
)
from skygw.sim.devices.camera import Camera
from skygw.sim.devices.device import Device, Refused
from skygw.sim.devices.enclosure import Enclosure
from skygw.sim.devices.filter_wheel import FilterWheel
from skygw.sim.devices.focuser import Focuser
from skygw.sim.devices.mount import Mount
from skygw.sim.telescope import Telescope

D = TypeVar("D", bound=Device)


@dataclass(frozen=True)
class Addressee:
    """What a command names of a site. Every method raises `Refused` for what the site does not have."""

    telescopes: tuple[Telescope, ...]
    shared: tuple[Device, ...]
    telescope_uid: TelescopeUid | None
    device_uid: DeviceUid | None

    def one(self, kind: type[D]) -> D:
        """The device of this kind; `Refused` if several could be meant."""
        found = self.each(kind)
        if len(found) > 1:
            raise Refused(
                "This site has several telescopes; name the telescope or the device.",
                code="invalid",
                reason="ambiguous",
            )
        return found[0]

    def each(self, kind: type[D]) -> list[D]:
        """The devices of this kind that are named, or all of them: what a stop is for. Never empty."""
        found = [device for device in self._candidates() if isinstance(device, kind)]
        if not found:
            raise Refused("The device named does not take this command.", code="invalid", reason="wrong_device_type")
        return found

    def meant(self) -> tuple[Telescope, ...]:
        """The telescope named, the one of the device named, or all."""
        if self.device_uid is not None:
            self._candidates()
            owner = telescope_of(self.device_uid, self.telescopes)
            return self.telescopes if owner is None else (owner,)
        return self.telescopes if self.telescope_uid is None else (self._telescope(self.telescope_uid),)

    def touched_by(self, command: Command) -> list[Device]:
        """The devices that this command is about: what its proof has to show."""
        if isinstance(command, TelescopeStop | TelescopeSafeShutdown):
            devices = [device for telescope in self.meant() for device in telescope.devices]
            if isinstance(command, TelescopeStop):
                return devices
            return [*devices, *(device for device in self.shared if isinstance(device, Enclosure))]
        if isinstance(command, CameraExposureStart) and command.filter_id is not None:
            camera = self.one(Camera)
            telescope = telescope_of(camera.uid, self.telescopes)
            return [camera] if telescope is None else [camera, telescope.filter_wheel]
        kind = _kind_of(command)
        return list(self.each(kind)) if isinstance(command, SAFING) else [self.one(kind)]

    def _candidates(self) -> Sequence[Device]:
        among = self.telescopes if self.telescope_uid is None else (self._telescope(self.telescope_uid),)
        devices = [*self.shared, *(device for telescope in among for device in telescope.devices)]
        if self.device_uid is None:
            return devices
        named = [device for device in devices if device.uid == self.device_uid]
        if not named:
            raise Refused(f"There is no device {self.device_uid} here.", code="not_found", reason="not_found")
        return named

    def _telescope(self, telescope_uid: TelescopeUid) -> Telescope:
        for telescope in self.telescopes:
            if telescope.uid == telescope_uid:
                return telescope
        raise Refused(f"There is no telescope {telescope_uid} here.", code="not_found", reason="not_found")


def telescope_of(device_uid: DeviceUid, telescopes: Sequence[Telescope]) -> Telescope | None:
    """The telescope that a device is part of; None for what is shared, or unknown."""
    for telescope in telescopes:
        if any(device.uid == device_uid for device in telescope.devices):
            return telescope
    return None


def _kind_of(command: Command) -> type[Device]:
    match command:
        case CameraExposureStart() | CameraExposureAbort():
            return Camera
        case FocuserMove() | FocuserStop():
            return Focuser
        case FilterWheelPositionSet():
            return FilterWheel
        case EnclosureOpen() | EnclosureClose() | EnclosureStop():
            return Enclosure
        case _:
            return Mount
