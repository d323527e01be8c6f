"""A line can be named, changed and made in one text; what is wrong with the text is one sentence."""

from math import inf

import pytest

from skygw.sim.line import Line
from skygw.sim.line_profiles import PROFILES, line_of


@pytest.mark.parametrize("name", ["lte", "satellite", "dsl"])
def test_a_profile_is_known_by_its_name(name: str) -> None:
    line = line_of(name)
    assert line is PROFILES[name]
    assert line.up.bits_per_s < line.down.bits_per_s < inf


def test_only_a_satellite_is_half_a_second_away() -> None:
    assert [name for name, line in PROFILES.items() if line.round_trip_s > 0.5] == ["satellite"]


def test_a_profile_can_be_changed() -> None:
    line = line_of("dsl, latency-ms=150,cut-every-s=60,loss=0")
    assert (line.up.latency_s, line.down.latency_s, line.up.loss) == (0.15, 0.15, 0)
    assert line.troubles.cut_every_s == 60
    assert line.up.bits_per_s == PROFILES["dsl"].up.bits_per_s


def test_a_line_can_be_made_from_nothing() -> None:
    line = line_of("up-kbit=1000,down-kbit=inf,flip=0.5,stall-every-s=inf")
    assert (line.up.bits_per_s, line.down.bits_per_s) == (1_000_000, inf)
    assert line.down.flip == 0.5
    assert line.troubles == Line().troubles


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("isdn", "there is no line “isdn”: known are lte, satellite, dsl, and key=value pairs"),
        ("", "there is no line “”: known are"),
        ("lte,dsl", "a line has no “dsl”: it has up-kbit, down-kbit, latency-ms"),
        ("lte,latency=1", "a line has no “latency”"),
        ("up-kbit=0", "“up-kbit=0” is no line: up-kbit is a number from 1 to 1,000,000, or inf"),
        ("down-kbit=1e9", "“down-kbit=1e9” is no line: down-kbit is a number from 1 to 1,000,000, or inf"),
        ("lte,loss=2", "“loss=2” is no line: loss is a number from 0 to 1"),
        ("latency-ms=nan", "“latency-ms=nan” is no line"),
        ("latency-ms=inf", "“latency-ms=inf” is no line: latency-ms is a number from 0 to 10,000"),
        ("latency-ms=-1", "“latency-ms=-1” is no line"),
        ("latency-ms=soon", "“latency-ms=soon” is no line"),
        ("lte,latency-ms", "“latency-ms=” is no line"),
        ("jitter-ms=1e308", "“jitter-ms=1e308” is no line"),
        ("queue-ms=0", "“queue-ms=0” is no line: queue-ms is a number from 1 to 10,000"),
        ("cut-every-s=0", "“cut-every-s=0” is no line: cut-every-s is a number from 0.1 to 31,536,000, or inf"),
        ("reset-every-s=1e-320", "“reset-every-s=1e-320” is no line"),
        ("half-open-every-s=1e300", "“half-open-every-s=1e300” is no line"),
        ("stall-s=inf", "“stall-s=inf” is no line: stall-s is a number from 0.001 to 3,600"),
        ("lte,loss=0.1,loss=0.2", "“loss=0.2” is one too many: a line has one loss"),
        ("up-kbit=1,up-kbit=1", "“up-kbit=1” is one too many: a line has one up-kbit"),
        (f"loss={'9' * 999}", f"“loss={'9' * 35}…” is no line"),
    ],
)
def test_what_is_no_line_is_said_in_a_sentence(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match="line") as refused:
        line_of(spec)
    assert says in str(refused.value)
