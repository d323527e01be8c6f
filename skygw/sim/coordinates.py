"""Directions on the sky as unit vectors, so that a slew runs along the shortest arc without special cases.

The simulated sky stands still: a site has one local sidereal time for good. A target that can be observed
can be observed at every hour, and a test does not depend on the time of day.
"""

from dataclasses import dataclass
from math import asin, atan2, cos, degrees, radians, sin, sqrt


@dataclass(frozen=True)
class Equatorial:
    """Right ascension in 0..360 and declination in -90..90, degrees, of the frame the sky images use."""

    ra_deg: float
    dec_deg: float


@dataclass(frozen=True)
class Horizontal:
    """Altitude above the horizon and azimuth from north through east, degrees."""

    alt_deg: float
    az_deg: float


@dataclass(frozen=True)
class Direction:
    """A unit vector: x to the vernal equinox, z to the celestial north pole."""

    x: float
    y: float
    z: float


@dataclass(frozen=True)
class Place:
    """Where a site stands: its latitude and the sidereal time that its sky is frozen at, both in degrees."""

    latitude_deg: float
    local_sidereal_deg: float


def direction_of(position: Equatorial) -> Direction:
    """The unit vector of a position."""
    ra, dec = radians(position.ra_deg), radians(position.dec_deg)
    return Direction(cos(dec) * cos(ra), cos(dec) * sin(ra), sin(dec))


def equatorial_of(direction: Direction) -> Equatorial:
    """The position of a unit vector."""
    ra = degrees(atan2(direction.y, direction.x)) % 360.0
    return Equatorial(ra, degrees(atan2(direction.z, sqrt(direction.x**2 + direction.y**2))))


def separation_deg(one: Direction, other: Direction) -> float:
    """The angle between two directions, exact also when it is tiny (atan2 of cross and dot product)."""
    cross = sqrt(
        (one.y * other.z - one.z * other.y) ** 2
        + (one.z * other.x - one.x * other.z) ** 2
        + (one.x * other.y - one.y * other.x) ** 2
    )
    return degrees(atan2(cross, one.x * other.x + one.y * other.y + one.z * other.z))


def along_arc(origin: Direction, goal: Direction, fraction: float) -> Direction:
    """The direction at `fraction` (0..1) of the shortest arc between two that are not opposite each other."""
    angle = radians(separation_deg(origin, goal))
    if angle < 1e-12:
        return goal
    a, b = sin((1 - fraction) * angle) / sin(angle), sin(fraction * angle) / sin(angle)
    x, y, z = a * origin.x + b * goal.x, a * origin.y + b * goal.y, a * origin.z + b * goal.z
    length = sqrt(x * x + y * y + z * z)
    return Direction(x / length, y / length, z / length)


def horizontal_of(position: Equatorial, place: Place) -> Horizontal:
    """Where a position stands above the horizon of a place."""
    hour = radians(place.local_sidereal_deg - position.ra_deg)
    dec, latitude = radians(position.dec_deg), radians(place.latitude_deg)
    alt = asin(max(-1.0, min(1.0, sin(dec) * sin(latitude) + cos(dec) * cos(latitude) * cos(hour))))
    az = atan2(-cos(dec) * sin(hour), sin(dec) * cos(latitude) - cos(dec) * sin(latitude) * cos(hour))
    return Horizontal(degrees(alt), degrees(az) % 360.0)


def equatorial_at(horizontal: Horizontal, place: Place) -> Equatorial:
    """The position that stands at an altitude and azimuth of a place."""
    alt, az, latitude = radians(horizontal.alt_deg), radians(horizontal.az_deg), radians(place.latitude_deg)
    dec = asin(max(-1.0, min(1.0, sin(alt) * sin(latitude) + cos(alt) * cos(latitude) * cos(az))))
    hour = atan2(-cos(alt) * sin(az), sin(alt) * cos(latitude) - cos(alt) * sin(latitude) * cos(az))
    return Equatorial((place.local_sidereal_deg - degrees(hour)) % 360.0, degrees(dec))
