"""Directions on the sky: arcs are the shortest, and the two kinds of coordinates turn into each other."""

import pytest

from skygw.sim.coordinates import (
    Equatorial,
    Horizontal,
    Place,
    along_arc,
    direction_of,
    equatorial_at,
    equatorial_of,
    horizontal_of,
    separation_deg,
)

PLACE = Place(latitude_deg=35.9, local_sidereal_deg=250.0)


def test_a_star_on_the_meridian_stands_south_at_the_height_its_declination_gives() -> None:
    stands = horizontal_of(Equatorial(250.0, 10.0), PLACE)
    assert stands.alt_deg == pytest.approx(90 - 35.9 + 10)
    assert stands.az_deg == pytest.approx(180)


def test_a_star_that_has_not_culminated_stands_in_the_east() -> None:
    assert 0 < horizontal_of(Equatorial(280.0, 10.0), PLACE).az_deg < 180


@pytest.mark.parametrize(("alt_deg", "az_deg"), [(20.0, 0.5), (45.0, 120.0), (70.0, 300.0), (-10.0, 200.0)])
def test_horizontal_coordinates_survive_the_way_over_equatorial_ones(alt_deg: float, az_deg: float) -> None:
    there_and_back = horizontal_of(equatorial_at(Horizontal(alt_deg, az_deg), PLACE), PLACE)
    assert there_and_back.alt_deg == pytest.approx(alt_deg)
    assert there_and_back.az_deg == pytest.approx(az_deg)


def test_the_arc_crosses_zero_right_ascension_the_short_way() -> None:
    middle = equatorial_of(along_arc(direction_of(Equatorial(350, 0)), direction_of(Equatorial(20, 0)), 0.5))
    assert middle.ra_deg == pytest.approx(5)


def test_a_tiny_separation_is_not_lost_in_rounding() -> None:
    one, other = direction_of(Equatorial(250.0, 36.0)), direction_of(Equatorial(250.0, 36.0 + 1e-9))
    assert separation_deg(one, other) == pytest.approx(1e-9, rel=1e-4)
