"""Reads what is plainly right with compiled parsers, and leaves everything else to the strict reader.

Nothing is refused here: `None` means undecided. What is returned is what the strict reader (`json_text.py`, `frame.py`)
would have returned, which the tests compare on random and on damaged text. So every refusal, with its sentence, comes
from one place, and the compiled parsers need not agree with it about what is wrong.

jiter notices broken syntax, NaN, lone surrogates and duplicate keys; msgspec tells where the text of a member lies.
What neither of them notices is looked for here: depth, number of values, U+0000, numbers beyond a double.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic

import jiter
import msgspec
from pydantic import ValidationError, create_model

from skygw.protocol.frame import FrameT, ModelT, Read, shape_of
from skygw.protocol.json_text import BrokenJson, Opaque, measured
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE, MAX_JSON_DEPTH, MAX_JSON_VALUES

if TYPE_CHECKING:
    from skygw.protocol.codec import BadFrame

_items = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

_ALIKE = bytes.maketrans(b"123456789E{", b"000000000e[")
"""All digits, both spellings of an exponent and both kinds of openings as one, so that one search finds them."""

_BESIDE = b' \t\n\r"+_ghijklmnopqrstuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ'
"""What no number beyond a double needs, so that there is less to search. Leaving it out may bring together what stood
apart: a false alarm, which costs a closer look. The hexadecimal digits stay, so that few uuids raise one.
"""

_MANY_DIGITS = b"0" * 200
"""A double ends at 1.8e308: a number beyond it has an exponent of three digits, or more digits than these."""


class QuickReader(Generic[FrameT]):
    """Reads the frames of one direction."""

    def __init__(self, models: Mapping[str, type[FrameT]]) -> None:
        self._kinds = {kind: _Kind(model) for kind, model in models.items()}

    def read(self, message: str, raw: bytes) -> "list[Read[FrameT] | BadFrame] | None":
        """The frames of a text message, whose UTF-8 is `raw`: one, or an array. None of them is bad."""
        if not _may_be_read(message, raw):
            return None
        parsed = _parsed(raw)
        if message[-1:] == "}" and message[0] == "{":
            frame = self._frame(parsed, raw)
            return None if frame is None else [Read(frame, message)]
        if type(parsed) is not list or len(parsed) > MAX_FRAMES_PER_MESSAGE:
            return None
        try:
            items = _items.decode(raw)
        except ValueError:
            return None
        found: list[Read[FrameT] | BadFrame] = []
        for members, item in zip(parsed, items, strict=True):
            text = bytes(item)
            frame = self._frame(members, text)
            if frame is None:
                return None
            found.append(Read(frame, text.decode()))
        return found

    def _frame(self, members: Any, raw: bytes) -> FrameT | None:
        if type(members) is not dict:
            return None
        kind = members.get("kind")
        of_kind = self._kinds.get(kind) if type(kind) is str else None
        return None if of_kind is None else of_kind.frame(members, raw)


class _Kind(Generic[FrameT]):
    """Makes frames of one model. Opaque members and times of the usual layouts are checked here, because a validator in
    Python costs more than all of pydantic's own together. Those check the rest, exactly as the model says: in a twin of
    it, to which these members may be anything, and which fills an instance of the model itself.
    """

    def __init__(self, model: type[FrameT]) -> None:
        shape = shape_of(model)
        required = {name for name, info in model.model_fields.items() if info.is_required()}
        anything: dict[str, Any] = {
            name: (Any, ... if name in required else None) for name in (*shape.opaque, *shape.times)
        }
        twin = create_model(model.__name__, __base__=model, **anything) if anything else model
        parts: list[tuple[str, Any, Any]] = [
            *((name, msgspec.Raw, msgspec.Raw()) for name in shape.opaque),
            *((name, datetime | None, None) for name in shape.times),
        ]
        self._model = model
        self._snake = shape.snake
        self._names = shape.names
        self._opaque = [(name, name in shape.objects, name in required) for name in shape.opaque]
        self._times = [(name, name in required) for name in shape.times]
        self._parts = msgspec.json.Decoder(msgspec.defstruct(model.__name__, parts)) if parts else None
        self._validate = twin.__pydantic_validator__.validate_python
        self._validate_all = model.__pydantic_validator__.validate_python

    def frame(self, values: dict[str, Any], raw: bytes) -> FrameT | None:
        """`values` are the members of the object `raw`, parsed. They are used up."""
        if not self._snake.issuperset(values):
            named = _in_snake_case(values, self._names)
            if named is None:
                return None
            values = named
        validate = self._validate
        frame = self._model.__new__(self._model)
        try:
            if self._parts is not None:
                parts = self._parts.decode(raw)
                for name, must_be_an_object, is_required in self._opaque:
                    value = values.get(name)
                    if value is not None:
                        text = str(getattr(parts, name), "utf-8")
                        if (must_be_an_object and not isinstance(value, dict)) or not text:
                            return None  # without a text it was spelled in camelCase
                        values[name] = Opaque(text, value)
                    elif is_required:
                        return None
                for name, is_required in self._times:
                    value = values.get(name)
                    if value is not None:
                        time = getattr(parts, name)
                        if time is None or not _is_usual(value):
                            validate = self._validate_all
                        else:
                            values[name] = time
                    elif is_required:
                        validate = self._validate_all  # which knows whether it may be null
            validate(values, self_instance=frame)
        except ValueError:
            return None
        return frame


def read_body(model: type[ModelT], raw: bytes) -> ModelT | None:
    """The model of a document that is one object, an HTTP body."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    members = _parsed(raw) if _may_be_read(text, raw) else None
    shape = shape_of(model)
    values = _in_snake_case(members, shape.names) if type(members) is dict else None
    if values is None:
        return None
    texts = _members.decode(raw)
    for name, camel in shape.opaque.items():
        value = values.get(name)
        if value is not None:
            values[name] = Opaque(str(texts[name if name in texts else camel], "utf-8"), value)
    try:
        return model.model_validate(values)
    except ValidationError:
        return None


def _in_snake_case(members: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    values: dict[str, Any] = {}
    for key, value in members.items():
        name = names.get(key, key)
        if name in values:
            return None
        values[name] = value
    return values


_USUAL_TIMES = {
    20: ("--T::Z", "Z"),
    24: ("--T::.", "Z"),
    27: ("--T::.", "Z"),
    25: ("--T::+", "+00:00"),
    29: ("--T::.", "+00:00"),
    32: ("--T::.", "+00:00"),
}
"""How most programs write a time: in UTC, with no, three or six digits of a fraction. By its length: every third
character from the first dash on, which is no digit, and the end.
"""


def _is_usual(time: str) -> bool:
    """Whether a time that msgspec could read is laid out so that pydantic would read the same."""
    marks, end = _USUAL_TIMES.get(len(time), ("?", ""))
    return time[4:20:3] == marks and time.endswith(end)


def _may_be_read(text: str, raw: bytes) -> bool:
    """Looks at the text, before anything is built, for what the parsers would let through."""
    if "\\" in text and "\\u0000" in text:
        return False
    marks = raw.translate(_ALIKE, _BESIDE)
    if marks.count(b"[") > MAX_JSON_DEPTH or len(text) > MAX_JSON_VALUES:
        try:
            if measured(text) is not None:
                return False
        except BrokenJson:
            return False
    if b"0e000" in marks or (len(marks) >= len(_MANY_DIGITS) and _MANY_DIGITS in marks):
        try:
            msgspec.json.decode(raw)  # which refuses numbers beyond a double, where jiter makes infinities of them
        except ValueError:
            return False
    return True


def _parsed(raw: bytes) -> Any:
    """`None` for what is no JSON, too."""
    try:
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return None
