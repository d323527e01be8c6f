"""What the helper process says of a file, and how little of what it says is believed."""

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any

MOST_REPLY_BYTES = 16 * 1024
LONGEST_PROBLEM = 250


class NotFits(Exception):
    """The file is no FITS file, or not all of one. `str` of it is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class SkyBox:
    """Where an image lies on the sky: degrees, ICRS, right ascension first.

    `corners` are the outer corners of the pixels (1, 1), (nx, 1), (nx, ny), (1, ny), in this order.
    """

    center: tuple[float, float]
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FitsFinding:
    """`problem` is a sentence for a person, or None of a FITS file that is whole; `box` is where it has a known one."""

    problem: str | None
    box: SkyBox | None = None


def write_finding(finding: FitsFinding) -> bytes:
    box = None if finding.box is None else {"center": finding.box.center, "corners": finding.box.corners}
    return json.dumps({"problem": finding.problem, "box": box}, allow_nan=False).encode()


def read_finding(raw: bytes) -> FitsFinding:
    """Raises `ValueError`: what wrote this has read a stranger's bytes, and may be theirs."""
    said = json.loads(raw)
    if not isinstance(said, dict):
        raise ValueError("not an object")
    problem = said.get("problem")
    if problem is None:
        return FitsFinding(None, _box(said.get("box")))
    if not isinstance(problem, str):
        raise ValueError("the problem is no text")
    return FitsFinding("".join(char if " " <= char <= "~" else "?" for char in problem)[:LONGEST_PROBLEM])


def _box(said: Any) -> SkyBox | None:
    if said is None:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("corners"), list) or len(said["corners"]) != 4:
        raise ValueError("not a box")
    return SkyBox(_point(said.get("center")), tuple(_point(corner) for corner in said["corners"]))


def _point(said: Any) -> tuple[float, float]:
    if not isinstance(said, list) or len(said) != 2:
        raise ValueError("not a point")
    right_ascension, declination = said
    if not all(isinstance(each, float) and isfinite(each) for each in said):
        raise ValueError("not a point")
    if not (0 <= right_ascension <= 360 and -90 <= declination <= 90):
        raise ValueError("not a point on the sky")
    return right_ascension, declination
