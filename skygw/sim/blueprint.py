"""What stands at a simulated site, drawn from a seed: who is where, under which uids."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from uuid import UUID

from skygw.ids import DeviceUid, InstallId, InstanceUid, TelescopeUid
from skygw.sim.coordinates import Place
from skygw.sim.devices.filter_wheel import Filter
from skygw.sim.seeds import chance_of, uid_of
from skygw.sim.sky import M13

FILTERS = tuple(Filter(number, name) for number, name in enumerate(("Open", "B", "V", "R", "I"), start=1))


class Layout(StrEnum):
    """How whoever has to close a roof knows the weather."""

    WIRED = "wired"
    """The observatory's installation runs the roof and the weather sensor, which are wired to each other."""

    REMOTE_WEATHER = "remote_weather"
    """The weather sensor is another installation's: the telescopes' nodes know of it through the hub alone, and run the
    policy on their own clocks. The roof over a single telescope is run by its node, a shared one by the observatory's.
    """


@dataclass(frozen=True)
class TelescopeBlueprint:
    """A telescope with one mount and one tube that carries a camera, a focuser and a filter wheel.

    `install_id` and `instance_uid` are those of the installation that runs it.
    """

    name: str
    uid: TelescopeUid
    install_id: InstallId
    instance_uid: InstanceUid
    ota_uid: DeviceUid
    mount_uid: DeviceUid
    camera_uid: DeviceUid
    focuser_uid: DeviceUid
    filter_wheel_uid: DeviceUid
    position_uids: tuple[UUID, ...]
    """Of the wheel's positions, which have `FILTERS` in their order."""
    instrument_uid: UUID
    """Of the tube with all it carries, one imager."""
    sun_altitude_uid: UUID
    """Of the constraint that the sun be low."""


@dataclass(frozen=True)
class SiteBlueprint:
    """An observatory; its telescopes share the enclosure and the weather sensor.

    `install_id` and `instance_uid` are those of the installation that runs what is shared.
    """

    seed: str
    number: int
    name: str
    install_id: InstallId
    instance_uid: InstanceUid
    observatory_uid: UUID
    site_uid: UUID
    place: Place
    ip_camera_uid: UUID
    """Of the camera that shows the hall."""
    enclosure_uid: DeviceUid
    weather_sensor_uid: DeviceUid
    weather_constraint_uid: UUID
    """Of the constraint that the weather sensor be content, for all telescopes here."""
    telescopes: tuple[TelescopeBlueprint, ...]
    layout: Layout = Layout.WIRED

    @property
    def telescope_runs_roof(self) -> bool:
        """Whether the roof is the only telescope's own."""
        return self.layout is Layout.REMOTE_WEATHER and len(self.telescopes) == 1

    def chance(self, device: str) -> Random:
        """The random stream of one device of this site."""
        return chance_of(self.seed, self.number, device)


def filter_uid(filter_id: int) -> UUID:
    """A filter is of no site: all wheels of all fleets have the same."""
    return uid_of("filter", filter_id)


def draw_site(seed: str, number: int, *, telescopes: int = 1, layout: Layout = Layout.WIRED) -> SiteBlueprint:
    """The site of this number in the fleet of this seed; always the same one. M13 stands high above each."""
    if telescopes < 1:
        raise ValueError("A site needs at least one telescope.")

    def uid(*names: object) -> UUID:
        return uid_of("fleet", seed, number, *names)

    chance = chance_of(seed, number, "place")
    name = f"Simulated Observatory {number:03d}"
    return SiteBlueprint(
        seed=seed,
        number=number,
        name=name,
        install_id=InstallId(uid("installation")),
        instance_uid=InstanceUid(uid("instance")),
        observatory_uid=uid("observatory"),
        site_uid=uid("site"),
        place=Place(
            latitude_deg=round(chance.uniform(20.0, 50.0), 4),
            local_sidereal_deg=round((M13.ra_deg + chance.uniform(-30.0, 30.0)) % 360.0, 4),
        ),
        ip_camera_uid=uid("ip_camera"),
        enclosure_uid=DeviceUid(uid("enclosure")),
        weather_sensor_uid=DeviceUid(uid("weather_sensor")),
        weather_constraint_uid=uid("constraint", "weather_sensor"),
        telescopes=tuple(
            TelescopeBlueprint(
                name=f"Telescope {number:03d}-{index}",
                uid=TelescopeUid(uid("telescope", index)),
                install_id=InstallId(uid("installation", index)),
                instance_uid=InstanceUid(uid("instance", index)),
                ota_uid=DeviceUid(uid("ota", index)),
                mount_uid=DeviceUid(uid("mount", index)),
                camera_uid=DeviceUid(uid("camera", index)),
                focuser_uid=DeviceUid(uid("focuser", index)),
                filter_wheel_uid=DeviceUid(uid("filter_wheel", index)),
                position_uids=tuple(uid("position", index, each.filter_id) for each in FILTERS),
                instrument_uid=uid("instrument", index),
                sun_altitude_uid=uid("constraint", "sun_altitude", index),
            )
            for index in range(1, telescopes + 1)
        ),
        layout=layout,
    )


def draw_fleet(seed: str, count: int, *, telescopes: int = 1, layout: Layout = Layout.WIRED) -> list[SiteBlueprint]:
    """The first `count` sites of a seed's fleet; a larger fleet begins with the same sites."""
    return [draw_site(seed, number, telescopes=telescopes, layout=layout) for number in range(1, count + 1)]
