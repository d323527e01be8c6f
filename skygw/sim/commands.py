"""The commands a simulated site understands, checked before anything moves.

A target is `{"position_type": "equatorial", "ra_deg", "dec_deg"}` or
`{"position_type": "horizontal", "alt_deg", "az_deg"}`, all in degrees; `position_type` may be left out. Unknown keys
are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from skygw.sim.coordinates import Equatorial, Horizontal
from skygw.sim.devices.device import Refused
from skygw.sim.devices.mount import OffsetAxis
from skygw.sim.offset_pattern import OffsetPattern


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class EquatorialTarget(_Part):
    position_type: Literal["equatorial"] = "equatorial"
    ra_deg: float = Field(ge=0, lt=360)
    dec_deg: float = Field(ge=-90, le=90)

    def position(self) -> Equatorial:
        return Equatorial(self.ra_deg, self.dec_deg)


class HorizontalTarget(_Part):
    position_type: Literal["horizontal"] = "horizontal"
    alt_deg: float = Field(ge=-90, le=90)
    az_deg: float = Field(ge=0, lt=360)

    def position(self) -> Horizontal:
        return Horizontal(self.alt_deg, self.az_deg)


def _position_type(target: Any) -> str | None:
    """What was said, or else what the coordinates say."""
    if not isinstance(target, dict):
        return None
    guess = "equatorial" if "ra_deg" in target else "horizontal" if "alt_deg" in target else None
    said = target.get("position_type", guess)
    return said if isinstance(said, str) else None


Target = Annotated[
    Annotated[EquatorialTarget, Tag("equatorial")] | Annotated[HorizontalTarget, Tag("horizontal")],
    Discriminator(
        _position_type,
        custom_error_type="position_type",
        custom_error_message="a target here is equatorial (ra_deg, dec_deg) or horizontal (alt_deg, az_deg)",
    ),
]


class MountPoint(_Part):
    command_type: Literal["mount.point"]
    target: Target


class MountTrack(_Part):
    command_type: Literal["mount.track"]
    target: Target
    offset_pattern: OffsetPattern | None = None


class MountOffsetRelative(_Part):
    command_type: Literal["mount.offset_relative"]
    delta_arcsec: float = Field(ge=-360_000, le=360_000)
    axis: OffsetAxis


class MountPark(_Part):
    command_type: Literal["mount.park"]


class MountUnpark(_Part):
    command_type: Literal["mount.unpark"]


class MountStop(_Part):
    command_type: Literal["mount.stop"]


class CameraExposureStart(_Part):
    command_type: Literal["camera.exposure.start"]
    duration_s: float = Field(ge=0, le=7200)
    binning: int = Field(default=1, ge=1, le=8)
    filter_id: int | None = None


class CameraExposureAbort(_Part):
    command_type: Literal["camera.exposure.abort"]


class FilterWheelPositionSet(_Part):
    command_type: Literal["filter_wheel.position.set"]
    position: int


class FocuserMove(_Part):
    command_type: Literal["focuser.move"]
    position: int


class FocuserStop(_Part):
    command_type: Literal["focuser.stop"]


class EnclosureOpen(_Part):
    command_type: Literal["enclosure.open"]


class EnclosureClose(_Part):
    command_type: Literal["enclosure.close"]


class EnclosureStop(_Part):
    command_type: Literal["enclosure.stop"]


class TelescopeStop(_Part):
    """Every device of the telescope, where it is: nothing is parked and nothing closed."""

    command_type: Literal["telescope.stop"]


class TelescopeSafeShutdown(_Part):
    command_type: Literal["telescope.safe_shutdown"]


Command = Annotated[
    MountPoint
    | MountTrack
    | MountOffsetRelative
    | MountPark
    | MountUnpark
    | MountStop
    | CameraExposureStart
    | CameraExposureAbort
    | FilterWheelPositionSet
    | FocuserMove
    | FocuserStop
    | EnclosureOpen
    | EnclosureClose
    | EnclosureStop
    | TelescopeStop
    | TelescopeSafeShutdown,
    Field(discriminator="command_type"),
]
SAFING = (MountStop, CameraExposureAbort, FocuserStop, EnclosureStop, TelescopeStop, TelescopeSafeShutdown)
"""What nothing may refuse or delay."""

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)


def read_command(command: dict[str, Any]) -> Command:
    """Check a command as it came. Raises `Refused` with the field list in `details["fields"]`."""
    try:
        return _COMMANDS.validate_python(command)
    except ValidationError as error:
        fields = error.errors(include_url=False, include_context=False, include_input=False)
        said = "; ".join(f"{'.'.join(str(part) for part in field['loc'])}: {field['msg']}" for field in fields)
        raise Refused(
            f"This site does not understand the command: {said}.",
            code="invalid",
            reason="invalid",
            fields=fields,
        ) from error
