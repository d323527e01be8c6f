"""The catalogue of commands refuses what cannot be right, names its members with units, and leaves the rest alone."""

from pathlib import Path
from typing import Any

import pytest

from skygw.protocol.command_catalogue import KNOWN, catalogue_table, misfits
from skygw.sim.commands import read_command

GUIDE = Path(__file__).parents[2] / "docs" / "http.md"
TARGET = {"position_type": "equatorial", "ra_deg": 83.82, "dec_deg": -5.39}

GOOD: list[dict[str, Any]] = [
    {"command_type": "mount.point", "target": TARGET},
    {"command_type": "mount.point", "target": {"position_type": "minor_planet", "designation": "433"}},
    {"command_type": "mount.point", "target": {"positionType": "horizontal", "altDeg": 45, "azDeg": 0}},
    {"command_type": "mount.track", "target": TARGET, "offset_pattern": {"pattern_type": "daisy", "petals": 4}},
    {"command_type": "mount.offset_relative", "delta_arcsec": -3, "axis": "ra"},
    {"command_type": "camera.exposure.start", "duration_s": 0, "binning": 2, "filter_id": 7},
    {"command_type": "camera.exposure.start", "durationS": 1.5, "gain": 3},
    {"command_type": "imager.autofocus", "filter_id": "3b4e28ba-2fa1-41d2-883f-0016d3cca427", "steps": 9},
    {"command_type": "filter_wheel.position.set", "position": 0},
    {"command_type": "focuser.move", "position": -100},
    {"command_type": "rotator.rotate", "angle_deg": 12.5},
    {"command_type": "enclosure.open"},
    {"command_type": "dome.spin", "target": 7},
]

BAD: list[tuple[dict[str, Any], list[list[str]]]] = [
    ({"command_type": "mount.point"}, [["target"]]),
    ({"command_type": "mount.point", "target": "M31"}, [["target"]]),
    ({"command_type": "mount.point", "target": {"ra_deg": 360}}, [["target", "ra_deg"]]),
    ({"command_type": "mount.point", "target": {"decDeg": "-5"}}, [["target", "dec_deg"]]),
    (
        {"command_type": "mount.track", "target": TARGET, "offset_pattern": {"pattern_type": "spiral"}},
        [["offset_pattern", "pattern_type"]],
    ),
    ({"command_type": "mount.offset_relative", "delta_arcsec": True, "axis": ""}, [["delta_arcsec"], ["axis"]]),
    ({"command_type": "camera.exposure.start", "duration_s": -1, "binning": 0}, [["duration_s"], ["binning"]]),
    ({"command_type": "camera.exposure.start", "duration_s": float("inf")}, [["duration_s"]]),
    ({"command_type": "filter_wheel.position.set", "position": 1.5}, [["position"]]),
    ({"command_type": "focuser.move"}, [["position"]]),
    ({"command_type": "rotator.rotate", "angle_deg": None}, [["angle_deg"]]),
]


@pytest.mark.parametrize("command", GOOD, ids=str)
def test_what_may_be_right_is_carried(command: dict[str, Any]) -> None:
    assert misfits(command["command_type"], command) == []


@pytest.mark.parametrize(("command", "where"), BAD, ids=str)
def test_what_cannot_be_right_is_named(command: dict[str, Any], where: list[list[str]]) -> None:
    assert [field["loc"] for field in misfits(command["command_type"], command)] == where


def test_each_type_is_listed_once_and_the_guide_holds_the_table() -> None:
    assert len({model.command_type for model in KNOWN}) == len(KNOWN)
    assert catalogue_table() in GUIDE.read_text()


DAISY = {"pattern_type": "daisy", "petals": 4, "radius_arcsec": 9}
SIMULATED: list[dict[str, Any]] = [
    {
        "command_type": "mount.track",
        "target": TARGET,
        "offset_pattern": {"pattern_type": "daisy", "petals": 4, "radius_arcsec": 9},
    },
    {"command_type": "mount.point", "target": {"position_type": "horizontal", "alt_deg": 45, "az_deg": 0}},
    {"command_type": "camera.exposure.start", "duration_s": 1.5, "binning": 2, "filter_id": 7},
    {"command_type": "filter_wheel.position.set", "position": 1},
    {"command_type": "focuser.move", "position": 100},
    *(
        {"command_type": model.command_type}
        for model in KNOWN
        if not model.model_fields and "rotator" not in model.command_type
    ),
]


@pytest.mark.parametrize("command", SIMULATED, ids=str)
def test_what_a_simulated_site_takes_is_as_the_catalogue_says(command: dict[str, Any]) -> None:
    read_command(command)
    assert misfits(command["command_type"], command) == []
