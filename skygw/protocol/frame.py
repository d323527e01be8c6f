"""What every frame is: frozen, snake_case on the wire, either spelling accepted, opaque members kept as text."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from json.encoder import encode_basestring
from math import isfinite
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from skygw.errors import Invalid
from skygw.protocol.json_text import JsonObject, Opaque, compact

MAX_SEQ = 2**53 - 1
"""The largest integer every JSON implementation carries exactly (RFC 8259 §6)."""


def _an_object(opaque: Opaque) -> Opaque:
    if not isinstance(opaque.value, dict):
        raise ValueError("must be an object")
    return opaque


RFC3339 = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$"
_RFC3339 = re.compile(RFC3339, re.ASCII)


def _as_rfc3339(value: Any) -> Any:
    """A number is no time, nor is a number in quotes, whatever pydantic makes of them."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise ValueError("must be an RFC 3339 time with an offset")
    return value


def _with_a_utc(value: datetime) -> datetime:
    """The first and last hours of the calendar have no UTC, and whoever converts them later would fail."""
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that UTC has") from None
    return value


_MUST_BE_AN_OBJECT = AfterValidator(_an_object)
_MUST_BE_A_TIME = BeforeValidator(_as_rfc3339)

OpaqueObject = Annotated[
    Opaque,
    _MUST_BE_AN_OBJECT,
    WithJsonSchema({"type": "object", "description": "Carried byte for byte."}),
]
Counter = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)]
Seq = Annotated[int, Field(strict=True, ge=1, le=MAX_SEQ)]
Milliseconds = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Timestamp = Annotated[
    AwareDatetime,
    _MUST_BE_A_TIME,
    AfterValidator(_with_a_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": RFC3339}),
]
ShortText = Annotated[str, Field(max_length=250)]
Message = Annotated[str, Field(max_length=2_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frame(BaseModel):
    """One frame. Unknown members are ignored, so that either end may be newer than the other."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    kind: str


FrameT = TypeVar("FrameT", bound=Frame)


class Read(NamedTuple, Generic[FrameT]):
    """One frame and the bytes it came in."""

    frame: FrameT
    text: str


class Shape:
    """How the members of one model are spelled, and which of them are opaque or times."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.snake = frozenset(model.model_fields)
        self.begin = {name: f'"{name}":' for name in model.model_fields}
        self.names: dict[str, str] = {}
        """Of either spelling, in snake_case."""
        self.opaque: dict[str, str] = {}
        """Both spellings of each opaque member."""
        self.objects: set[str] = set()
        """The opaque members that must be objects."""
        self.times: set[str] = set()
        for name, info in model.model_fields.items():
            self.names[name] = name
            self.names[to_camel(name)] = name
            made_of = [*_parts(info.annotation), *info.metadata]
            if Opaque in made_of:
                self.opaque[name] = to_camel(name)
            if _MUST_BE_AN_OBJECT in made_of:
                self.objects.add(name)
            if _MUST_BE_A_TIME in made_of:
                self.times.add(name)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


@cache
def shape_of(model: type[BaseModel]) -> Shape:
    return Shape(model)


ModelT = TypeVar("ModelT", bound=BaseModel)


def read_model(model: type[ModelT], source: JsonObject) -> ModelT:
    """Validates an object as `model`; raises `Invalid` with the list of fields. The input is never echoed whole."""
    if source.flaw is not None:
        raise Invalid(f"The body is refused: {source.flaw}.")
    shape = shape_of(model)
    values: dict[str, Any] = {}
    for key, member in source.members.items():
        name = shape.names.get(key)
        if name is None:
            values[key] = member.value
            continue
        if name in values:
            raise Invalid(f"The key {name!r} stands in both spellings; send one of them.")
        if name in shape.opaque and member.value is not None:
            values[name] = Opaque(source.document[member.start : member.end], member.value)
        else:
            values[name] = member.value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fields = [
            {"type": item["type"], "loc": list(item["loc"]), "msg": item["msg"]}
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        first = fields[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Invalid(f"{where}: {first['msg']}", fields=fields) from None


def write_model(value: BaseModel) -> str:
    """The JSON text of a frame: snake_case, opaque members as they came, members that are `None` left out.

    Raises `ValueError` on NaN and infinities.
    """
    parts: list[str] = []
    members = vars(value)
    for name, begin in shape_of(type(value)).begin.items():
        member = members[name]
        if member is None:
            continue
        text = _WRITE.get(type(member), _write_choice)(member)
        if text is None:
            return _write_any_model(value)
        parts.append(begin + text)
    return "{" + ",".join(parts) + "}"


def _write_choice(value: Any) -> str | None:
    return encode_basestring(value) if isinstance(value, StrEnum) else None


def _write_number(value: float) -> str | None:
    return float.__repr__(value) if isfinite(value) else None


def _write_time(value: datetime) -> str | None:
    return f'"{value.isoformat()[:-6]}Z"' if value.tzinfo is UTC else None


_WRITE: dict[type, Callable[[Any], str | None]] = {
    str: encode_basestring,
    int: int.__repr__,
    bool: lambda value: "true" if value else "false",
    float: _write_number,
    UUID: lambda value: f'"{value}"',
    datetime: _write_time,
    Opaque: lambda value: value.text,
}
"""What frames are mostly made of, written as pydantic and the JSON encoder would; `None` leaves a member to them."""


def _write_any_model(value: BaseModel) -> str:
    opaque = shape_of(type(value)).opaque
    return _written(value, value.model_dump(mode="json", exclude=set(opaque), exclude_none=True), lambda name: name)


def write_body(value: BaseModel) -> str:
    """The JSON text of an HTTP body: camelCase, opaque members as they came, `None` as null."""
    opaque = shape_of(type(value)).opaque
    plain = value.model_dump(mode="json", exclude=set(opaque), by_alias=True)
    return _written(value, {**plain, **dict.fromkeys(opaque.values())}, to_camel)


def _written(value: BaseModel, plain: dict[str, Any], spelled: Callable[[str], str]) -> str:
    opaque = shape_of(type(value)).opaque
    parts: list[str] = []
    for name in type(value).model_fields:
        key = spelled(name)
        carried = getattr(value, name) if name in opaque else None
        if carried is not None:
            parts.append(f'"{key}":{carried.text}')
        elif key in plain:
            parts.append(f'"{key}":{compact.encode(plain[key])}')
    return "{" + ",".join(parts) + "}"
