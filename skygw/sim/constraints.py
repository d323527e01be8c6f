"""The operational constraints of a simulated site: what each asks, and whether it is met."""

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any
from uuid import UUID

from skygw.sim.devices.device import DeviceFault
from skygw.sim.installation import Site
from skygw.sim.posts import Post

SETTLES_S = 600.0
"""Simulated seconds without rain until the weather is called safe again."""

SUN_BELOW_DEG = -12.0
CLOCK_TRUSTED_S = 60.0
"""A site's clock that is further off, in simulated seconds, cannot tell where the sun is."""


class Status(StrEnum):
    """The platform's words for the status of a constraint's source."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    STABILIZING = "stabilizing"
    UNKNOWN = "unknown"
    FAULT = "fault"


class Constraint(ABC):
    """One constraint, for a telescope or, without one, for all that share the site."""

    constraint_type: str

    def __init__(self, uid: UUID, site: Site, *, telescope_uid: UUID | None, asks: dict[str, Any]) -> None:
        self._uid = uid
        self._site = site
        self._telescope_uid = telescope_uid
        self._asks = asks

    def snapshot(self) -> dict[str, Any]:
        """What it asks."""
        return {
            "uid": str(self._uid),
            "constraint_type": self.constraint_type,
            "observatory_uid": str(self._site.blueprint.observatory_uid),
            "telescope_uid": None if self._telescope_uid is None else str(self._telescope_uid),
            **self._asks,
        }

    def status_snapshot(self) -> dict[str, Any]:
        """Whether it is met."""
        return {"uid": str(self._uid), "constraint_type": self.constraint_type, "status": self._status(self._site)}

    @abstractmethod
    def _status(self, site: Site) -> Status: ...


class WeatherIsSafe(Constraint):
    constraint_type = "weather_sensor"

    def _status(self, site: Site) -> Status:
        try:
            raining = bool(site.weather_sensor.snapshot()["is_raining"])
        except DeviceFault:
            return Status.FAULT
        if raining:
            return Status.UNSAFE
        return Status.SAFE if site.weather_sensor.dry_for_s >= SETTLES_S else Status.STABILIZING


class SunIsLow(Constraint):
    """It always is, at these sites; what they do not always know is the time."""

    constraint_type = "sun_altitude"

    def _status(self, site: Site) -> Status:
        return Status.SAFE if abs(site.clock.wrong_by_s) <= CLOCK_TRUSTED_S else Status.UNKNOWN


def constraints_of(post: Post, site: Site) -> list[Constraint]:
    """Those that this installation watches: of the weather who has the sensor, of the sun each telescope."""
    drawn = site.blueprint
    found: list[Constraint] = []
    if site.weather_sensor in post.devices:
        asks = {"device_uid": str(drawn.weather_sensor_uid)}
        found.append(WeatherIsSafe(drawn.weather_constraint_uid, site, telescope_uid=None, asks=asks))
    for telescope in drawn.telescopes:
        if telescope.install_id == post.install_id:
            sun = {"max_altitude_deg": SUN_BELOW_DEG}
            found.append(SunIsLow(telescope.sun_altitude_uid, site, telescope_uid=telescope.uid, asks=sun))
    return found
