"""Which commands always get through."""

import pytest

from skygw.protocol.safing import is_safing


@pytest.mark.parametrize("command_type", ["mount.stop", "camera.exposure.abort", "telescope.safe_shutdown"])
def test_what_makes_a_telescope_safe_is_safing(command_type: str) -> None:
    assert is_safing(command_type)


@pytest.mark.parametrize(
    "command_type", ["", "stop", "abort", "mount.stop.later", "mount.park", "mount.unstop", "enclosure.close"]
)
def test_everything_else_is_not_however_it_is_named(command_type: str) -> None:
    assert not is_safing(command_type)
