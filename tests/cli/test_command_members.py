"""`key=value`: numbers, booleans and objects by the catalogue, text where it wants text, and nothing ambiguous sent."""

import pytest

from skygw.cli.command_members import command_of
from skygw.errors import StartupError


def test_members_are_read_as_the_catalogue_has_them() -> None:
    assert command_of("mount.offset_relative", ["delta_arcsec=-12.5", "axis=1"], None) == {
        "command_type": "mount.offset_relative",
        "delta_arcsec": -12.5,
        "axis": "1",
    }
    assert command_of("camera.exposure.start", ["durationS=10", "filter_id=R=2"], '{"binning": 2}') == {
        "command_type": "camera.exposure.start",
        "binning": 2,
        "durationS": 10,
        "filter_id": "R=2",
    }


def test_a_dot_leads_into_an_object() -> None:
    pairs = ["target.ra_deg=83.63", "target.dec_deg=22", "target.position_type=1", 'offset_pattern={"rows":2}']
    assert command_of("mount.track", [*pairs, "offset_pattern.pattern_type=raster"], None) == {
        "command_type": "mount.track",
        "target": {"ra_deg": 83.63, "dec_deg": 22, "position_type": "1"},
        "offset_pattern": {"rows": 2, "pattern_type": "raster"},
    }


def test_of_a_type_that_is_not_known_json_is_json_and_the_rest_is_text() -> None:
    pairs = ["depth=3", "fast=true", "note=as you like", 'code="7"', "where=[1,2]", "nothing=null", "limit=NaN", "e="]
    assert command_of("dive.start", pairs, None) == {
        "command_type": "dive.start",
        "depth": 3,
        "fast": True,
        "note": "as you like",
        "code": "7",
        "where": [1, 2],
        "nothing": None,
        "limit": "NaN",
        "e": "",
    }


@pytest.mark.parametrize(
    ("pairs", "body", "says"),
    [
        (["fast"], None, "should be key=value"),
        (["=1"], None, "should be key=value"),
        (["a..b=1"], None, "should be key=value"),
        (["a=1", "a=2"], None, "a is said twice"),
        (["a=1"], '{"a": 1}', "a is said twice"),
        (["command_type=x.y"], None, "command_type is said twice"),
        (["a=1", "a.b=2"], None, "leads into a, which is no object"),
        (['a={"b":1,"b":2}'], None, "the key 'b' stands twice"),
        (["a={"], None, "a is no JSON"),
        (['a="x","b":1'], None, "more than one value"),
        ([], "[1]", "--json-body should be a JSON object"),
        ([], '{"a": 1e999}', "beyond a double"),
        ([], '{"command_type": "mount.park"}', "another command_type than dive.start"),
    ],
)
def test_what_is_ambiguous_or_no_json_is_refused(pairs: list[str], body: str | None, says: str) -> None:
    with pytest.raises(StartupError, match=says.replace("(", "\\(")):
        command_of("dive.start", pairs, body)


def test_what_cannot_be_right_of_a_known_type_is_refused_here_but_never_of_a_stop() -> None:
    with pytest.raises(StartupError, match=r"this is no mount.point: target.dec_deg: .*90"):
        command_of("mount.point", ["target.dec_deg=91"], None)
    assert command_of("mount.stop", ["target=everything"], None)["target"] == "everything"
