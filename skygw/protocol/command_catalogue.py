"""The command types that are known: the published ones and ours, each with its members and their units.

Only a member that cannot be right is refused. Members that are not listed are carried: what is published may say more
than is known here. A type that is not listed is carried as it is: the node decides.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
DeviceType = Literal["mount", "camera", "focuser", "filter_wheel", "instrument_rotator", "enclosure"]
"""What moves, by the platform's `deviceType`."""
Key = Whole | Annotated[str, Field(strict=True, min_length=1, max_length=100)]
"""The hub's key of a record, or its uid."""


class _Part(BaseModel):
    """Members in either spelling."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, loc_by_alias=False, hide_input_in_errors=True
    )


class Target(_Part):
    """Where to point: an object; other positions than these are carried."""

    position_type: Annotated[str | None, Field(description="`equatorial`, `horizontal` or another one")] = None
    ra_deg: Annotated[Number | None, Field(ge=0, lt=360, description="right ascension, degrees")] = None
    dec_deg: Annotated[Number | None, Field(ge=-90, le=90, description="declination, degrees")] = None
    alt_deg: Annotated[Number | None, Field(ge=-90, le=90, description="altitude above the horizon, degrees")] = None
    az_deg: Annotated[Number | None, Field(ge=0, lt=360, description="azimuth from north to east, degrees")] = None


class OffsetPattern(_Part):
    """Steps around a target: the rows of a raster or the petals of a daisy."""

    pattern_type: Literal["raster", "daisy"] | None = None
    rows: Annotated[Whole | None, Field(ge=1)] = None
    columns: Annotated[Whole | None, Field(ge=1)] = None
    step_arcsec: Annotated[Number | None, Field(gt=0, description="between two points, arc seconds")] = None
    petals: Annotated[Whole | None, Field(ge=1)] = None
    radius_arcsec: Annotated[Number | None, Field(gt=0, description="of a petal, arc seconds")] = None
    points_per_petal: Annotated[Whole | None, Field(ge=1)] = None
    dwell_s: Annotated[Number | None, Field(ge=0, description="at each point, seconds")] = None


class Command(_Part):
    """A known command; its docstring says what it does."""

    command_type: ClassVar[str]
    published: ClassVar[bool] = False
    holds: ClassVar[tuple[DeviceType, ...]] = ()
    """What nothing else moves from when it is taken to its end. A stop that ends at once holds nothing."""


class MountPoint(Command):
    """Slew to a target."""

    command_type = "mount.point"
    published = True
    holds = ("mount",)
    target: Target


class MountTrack(Command):
    """Slew to a target and follow it."""

    command_type = "mount.track"
    published = True
    holds = ("mount",)
    target: Target
    offset_pattern: OffsetPattern | None = None


class MountOffsetRelative(Command):
    """Move from where the mount points now."""

    command_type = "mount.offset_relative"
    published = True
    holds = ("mount",)
    delta_arcsec: Annotated[Number, Field(description="arc seconds on the sky, signed")]
    axis: Annotated[str, Field(strict=True, min_length=1, max_length=32, description="which axis, by its name")]


class MountPark(Command):
    """Slew to the park position and stay there."""

    command_type = "mount.park"
    holds = ("mount",)


class MountUnpark(Command):
    """Leave the park position: what moves the mount is taken again."""

    command_type = "mount.unpark"
    holds = ("mount",)


class MountStop(Command):
    """Stop where it is. Safing."""

    command_type = "mount.stop"


class CameraExposureStart(Command):
    """Expose and read out one frame."""

    command_type = "camera.exposure.start"
    published = True
    holds = ("camera",)
    duration_s: Annotated[Number, Field(ge=0, description="exposure time, seconds; 0 is a bias frame")]
    binning: Annotated[Whole | None, Field(ge=1, description="pixels a side that are read as one")] = None
    filter_id: Annotated[Key | None, Field(description="the hub's key of the filter, or its uid")] = None


class CameraExposureAbort(Command):
    """End the exposure. Safing."""

    command_type = "camera.exposure.abort"


class ImagerAutofocus(Command):
    """Find the best focus with a filter."""

    command_type = "imager.autofocus"
    published = True
    holds = ("camera", "focuser", "filter_wheel")
    filter_id: Annotated[Key, Field(description="the hub's key of the filter, or its uid")]


class FilterWheelPositionSet(Command):
    """Turn the wheel."""

    command_type = "filter_wheel.position.set"
    holds = ("filter_wheel",)
    position: Annotated[Whole, Field(ge=0, description="which place of the wheel, from 0")]


class FocuserMove(Command):
    """Move the focuser."""

    command_type = "focuser.move"
    holds = ("focuser",)
    position: Annotated[Whole, Field(description="where to, steps of its motor")]


class FocuserStop(Command):
    """Stop where it is. Safing."""

    command_type = "focuser.stop"


class RotatorRotate(Command):
    """Turn the instrument."""

    command_type = "rotator.rotate"
    holds = ("instrument_rotator",)
    angle_deg: Annotated[Number, Field(ge=-360, le=360, description="position angle, degrees")]


class RotatorStop(Command):
    """Stop where it is. Safing."""

    command_type = "rotator.stop"


class EnclosureOpen(Command):
    """Open the dome or roof."""

    command_type = "enclosure.open"
    holds = ("enclosure",)


class EnclosureClose(Command):
    """Close the dome or roof."""

    command_type = "enclosure.close"
    holds = ("enclosure",)


class EnclosureStop(Command):
    """Stop where it is. Safing."""

    command_type = "enclosure.stop"


class TelescopeStop(Command):
    """Stop every device of the telescope where it is; nothing is parked and nothing closed. Safing."""

    command_type = "telescope.stop"


class TelescopeSafeShutdown(Command):
    """Stop, park and close, in the order the node knows. Safing."""

    command_type = "telescope.safe_shutdown"
    holds = ("mount", "enclosure")


KNOWN: tuple[type[Command], ...] = (
    MountPoint,
    MountTrack,
    MountOffsetRelative,
    MountPark,
    MountUnpark,
    MountStop,
    CameraExposureStart,
    CameraExposureAbort,
    ImagerAutofocus,
    FilterWheelPositionSet,
    FocuserMove,
    FocuserStop,
    RotatorRotate,
    RotatorStop,
    EnclosureOpen,
    EnclosureClose,
    EnclosureStop,
    TelescopeStop,
    TelescopeSafeShutdown,
)

_MODELS = {model.command_type: model for model in KNOWN}


def known(command_type: str) -> type[Command] | None:
    """The model of a type that is listed."""
    return _MODELS.get(command_type)


def misfits(command_type: str, command: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a command cannot be right, as `{type, loc, msg}` each; nothing of a type that is not known. What was sent
    is not echoed.
    """
    model = known(command_type)
    if model is None:
        return []
    try:
        model.model_validate(dict(command))
    except ValidationError as error:
        return [
            {"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"]}
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    return []


def held_by(command_type: str) -> tuple[DeviceType, ...]:
    """What a command of this type moves; nothing of a type that is not known."""
    model = known(command_type)
    return () if model is None else model.holds


def catalogue_table() -> str:
    """Every known type, as the Markdown table of the guide."""
    rows = ["| `command_type` | | members | moves | does |", "|---|---|---|---|---|"]
    for model in KNOWN:
        members = "; ".join(_member(name, info) for name, info in model.model_fields.items())
        origin = "published" if model.published else "ours"
        moves = ", ".join(f"`{part}`" for part in model.holds)
        rows.append(f"| `{model.command_type}` | {origin} | {members or 'none'} | {moves} | {_says(model)} |")
    for part in (Target, OffsetPattern):
        members = "; ".join(_member(name, info) for name, info in part.model_fields.items())
        rows.append(f"| ({_member_name(part)}) | | {members} | | {_says(part)} |")
    return "\n".join(rows) + "\n"


def catalogue_in_words() -> list[tuple[str, str, str]]:
    """Every known type, and behind them the parts: name, what it does, members. For people, without markup."""
    models: tuple[type[BaseModel], ...] = (*KNOWN, Target, OffsetPattern)
    rows = []
    for model in models:
        name = model.command_type if issubclass(model, Command) else f"({_member_name(model)})"
        members = "; ".join(_member(*field) for field in model.model_fields.items())
        rows.append((name.replace("`", ""), _says(model), members.replace("`", "")))
    return rows


def _says(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _member_name(part: type[BaseModel]) -> str:
    return {"Target": "`target`", "OffsetPattern": "`offset_pattern`"}[part.__name__]


def _member(name: str, info: FieldInfo) -> str:
    optional = "" if info.is_required() else "?"
    limits = " ".join(_limits(info))
    said = ", ".join(part for part in (info.description, limits) if part)
    return f"`{name}`{optional}" + (f" ({said})" if said else "")


def _limits(info: FieldInfo) -> Iterator[str]:
    for limit in info.metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            value = getattr(limit, attribute, None)
            if value is not None:
                yield f"{sign} {value:g}"
