"""One telescope of a simulated site: its devices, put together from its blueprint."""

from dataclasses import dataclass

from skygw.ids import TelescopeUid
from skygw.sim.blueprint import FILTERS, SiteBlueprint, TelescopeBlueprint
from skygw.sim.clock import SimClock
from skygw.sim.devices.camera import Camera, FrameRecorder
from skygw.sim.devices.device import Device, stop_each
from skygw.sim.devices.filter_wheel import FilterWheel
from skygw.sim.devices.focuser import Focuser
from skygw.sim.devices.mount import Mount
from skygw.sim.journal import DeviceJournal, Order


@dataclass(frozen=True)
class Telescope:
    """A mount, and on it a tube with a camera, a focuser and a filter wheel."""

    uid: TelescopeUid
    name: str
    mount: Mount
    camera: Camera
    focuser: Focuser
    filter_wheel: FilterWheel

    @property
    def devices(self) -> tuple[Device, ...]:
        return (self.mount, self.camera, self.focuser, self.filter_wheel)

    def stop(self, order: Order) -> None:
        """Stop every device where it is; synchronous. Raises the first `DeviceFault` when all were told."""
        stop_each(self.devices, order)


def build_telescope(
    drawn: TelescopeBlueprint,
    site: SiteBlueprint,
    *,
    clock: SimClock,
    journal: DeviceJournal,
    recorder: FrameRecorder,
) -> Telescope:
    """The telescope of a blueprint, parked, with its shutter closed."""
    mount = Mount(
        uid=drawn.mount_uid,
        name=f"{drawn.name} mount",
        clock=clock,
        journal=journal,
        chance=site.chance(f"{drawn.name} mount"),
        place=site.place,
    )
    filter_wheel = FilterWheel(
        uid=drawn.filter_wheel_uid,
        name=f"{drawn.name} filter wheel",
        clock=clock,
        journal=journal,
        chance=site.chance(f"{drawn.name} filter wheel"),
        filters=FILTERS,
    )
    focuser = Focuser(
        uid=drawn.focuser_uid,
        name=f"{drawn.name} focuser",
        clock=clock,
        journal=journal,
        chance=site.chance(f"{drawn.name} focuser"),
    )
    camera = Camera(
        uid=drawn.camera_uid,
        name=f"{drawn.name} camera",
        clock=clock,
        journal=journal,
        chance=site.chance(f"{drawn.name} camera"),
        telescope_name=drawn.name,
        pointing=lambda: mount.position,
        filter_name=lambda: None if filter_wheel.filter is None else filter_wheel.filter.name,
        recorder=recorder,
    )
    return Telescope(
        uid=drawn.uid,
        name=drawn.name,
        mount=mount,
        camera=camera,
        focuser=focuser,
        filter_wheel=filter_wheel,
    )
