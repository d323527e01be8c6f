"""Commands as a simulated site reads them."""

from typing import Any

import pytest

from skygw.sim.commands import EquatorialTarget, HorizontalTarget, MountPoint, read_command
from skygw.sim.devices.device import Refused


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"ra_deg": 83.63, "dec_deg": 22.01}, EquatorialTarget),
        ({"alt_deg": 45.0, "az_deg": 10.0}, HorizontalTarget),
        ({"position_type": "horizontal", "alt_deg": 45.0, "az_deg": 10.0}, HorizontalTarget),
    ],
)
def test_a_target_says_by_its_coordinates_what_it_is(target: dict[str, float], expected: type) -> None:
    command = read_command({"command_type": "mount.point", "target": target})
    assert isinstance(command, MountPoint)
    assert isinstance(command.target, expected)


@pytest.mark.parametrize("target", [{}, [], "M13", {"position_type": "galactic", "l": 1}, {"position_type": 7}])
def test_a_target_of_another_kind_is_refused_in_words_for_people(target: Any) -> None:
    with pytest.raises(Refused, match=r"equatorial \(ra_deg, dec_deg\) or horizontal \(alt_deg, az_deg\)"):
        read_command({"command_type": "mount.point", "target": target})
