"""Reads JSON strictly and keeps the text of each member, so that opaque values can be carried byte for byte.

The standard library's scanner does the reading (in C); the hooks here notice what RFC 8259 leaves open and the
contract forbids: duplicate keys, NaN and infinities, U+0000, lone surrogates. Such *flaws* do not stop the reading,
so that a flawed frame can still be answered by its `kind`, `id` and `seq`. Broken syntax does.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from skygw.protocol.limits import MAX_JSON_DEPTH, MAX_JSON_DEPTH_READ, MAX_JSON_VALUES

_WHITESPACE = re.compile(r"[ \t\n\r]*")
# The end of the text closes an unterminated string: the match never fails, so the scan stays linear.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_UP, _DOWN = 2, 0
_BRACKETS_AS_STEPS = bytes.maketrans(b"{[}]", bytes([_UP, _UP, _DOWN, _DOWN]))
_NO_MARKS = bytes(set(range(256)) - set(b"{[}],"))
_NEITHER_MARKS_NOR_QUOTES = bytes(set(range(256)) - set(b'{[}],"'))


compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""How this gateway writes JSON. Raises `ValueError` on NaN and infinities."""


class BrokenJson(ValueError):
    """Not JSON, or nested too deep to be read at all."""


class Opaque:
    """A JSON value that is carried and not understood: its text as it came, and its parsed form to look into.

    Two are equal when their bytes are. `value` must not be changed.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: str, value: Any) -> None:
        self.text = text
        self.value = value

    @classmethod
    def of(cls, value: Any) -> "Opaque":
        """Writes `value` as compact JSON. Raises `ValueError` on NaN, infinities, U+0000 and lone surrogates."""
        text = compact.encode(value)
        text.encode()  # lone surrogates end here, not in the socket
        if "\\u0000" in text and (flaw := _unstorable(json.loads(text))):
            raise ValueError(flaw)
        return cls(text, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Opaque({self.text[:80]!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(lambda opaque: opaque.value)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"description": "Carried byte for byte."}


class Member(NamedTuple):
    """One member of an object: its parsed value and where its text lies in the document."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class JsonObject:
    """One object of a document, its members in order, and the first flaw found inside it (a sentence)."""

    document: str
    members: dict[str, Member]
    start: int
    end: int
    flaw: str | None

    @property
    def text(self) -> str:
        return self.document[self.start : self.end]

    def value(self, key: str) -> Any:
        member = self.members.get(key)
        return None if member is None else member.value


class _StrictReader:
    """One reader per process is enough: reading is synchronous and `flaw` is reset by each object."""

    def __init__(self) -> None:
        self.flaw: str | None = None
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
        )

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
            self.flaw = self.flaw or f"the key {twice[:64]!r} stands twice in one object"
        return members

    def _constant(self, name: str) -> float:
        self.flaw = self.flaw or f"{name} is not JSON"
        return 0.0

    def _float(self, digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            self.flaw = self.flaw or f"the number {digits[:32]} is beyond a double"
            return 0.0
        return number

    def _int(self, digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # more digits than the interpreter converts: it would take time in their square
            self.flaw = self.flaw or f"the number {digits[:32]}… has too many digits"
            return 0


_reader = _StrictReader()


def _broken(what: str, at: int) -> NoReturn:
    raise BrokenJson(f"{what} at character {at}")


def _skip(document: str, at: int) -> int:
    match = _WHITESPACE.match(document, at)
    return match.end() if match else at


def _value(document: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _reader.decoder.raw_decode(document, at)
    except json.JSONDecodeError as error:
        _broken(error.msg, error.pos)
    except RecursionError:
        _broken("nested too deep", at)
    return value, end


def _object(document: str, at: int, standing_flaw: str | None) -> JsonObject:
    """Reads the object that starts at `at`. Raises `BrokenJson`."""
    if document[at : at + 1] != "{":
        _broken("expected an object", at)
    _reader.flaw = standing_flaw
    start = at
    members: dict[str, Member] = {}
    at = _skip(document, at + 1)
    if document[at : at + 1] == "}":
        return JsonObject(document, members, start, at + 1, _reader.flaw)
    while True:
        if document[at : at + 1] != '"':
            _broken("expected a key", at)
        key, at = _value(document, at)
        at = _skip(document, at)
        if document[at : at + 1] != ":":
            _broken("expected a colon", at)
        at = _skip(document, at + 1)
        value, end = _value(document, at)
        if key in members:
            _reader.flaw = _reader.flaw or f"the key {key[:64]!r} stands twice in one object"
        members[key] = Member(value, at, end)
        at = _skip(document, end)
        mark = document[at : at + 1]
        if mark == "}":
            break
        if mark != ",":
            _broken("expected a comma or the end of the object", at)
        at = _skip(document, at + 1)
    flaw = _reader.flaw
    if flaw is None and "\\u" in document:
        flaw = _unstorable([*members, *(member.value for member in members.values())])
    return JsonObject(document, members, start, at + 1, flaw)


def _unstorable(value: Any) -> str | None:
    """U+0000 and lone surrogates can only be written as escapes; no PostgreSQL text holds them."""
    if isinstance(value, str):
        if "\x00" in value:
            return "U+0000 is not accepted"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return "a lone surrogate is not accepted"
        return None
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((flaw for item in value if (flaw := _unstorable(item))), None)
    return None


def _marks_outside_strings(document: str) -> bytes:
    """The brackets and commas that are structure."""
    if "\\" in document:
        return _STRING.sub("", document).encode(errors="replace").translate(None, _NO_MARKS)
    marks_and_quotes = document.encode(errors="replace").translate(None, _NEITHER_MARKS_NOR_QUOTES)
    # Two quotes with nothing between them: an empty string, or two strings that become one. Few are left to be split.
    return b"".join(marks_and_quotes.replace(b'""', b"").split(b'"')[::2])


def measured(document: str) -> str | None:
    """Looks at depth and count before anything is built. Returns a flaw; raises `BrokenJson` far beyond."""
    openings = document.count("{") + document.count("[")
    if openings <= MAX_JSON_DEPTH and (
        len(document) <= MAX_JSON_VALUES or openings + document.count(",") <= MAX_JSON_VALUES
    ):
        return None
    marks = _marks_outside_strings(document)
    brackets = marks.replace(b",", b"")
    if len(marks) - len(brackets) + brackets.count(b"{") + brackets.count(b"[") > MAX_JSON_VALUES:
        raise BrokenJson(f"more than {MAX_JSON_VALUES} values in one document")
    inner = brackets
    for _ in range(MAX_JSON_DEPTH // 2):  # each time two levels at most
        inner = inner.replace(b"[]", b"").replace(b"{}", b"")
        if not inner:
            return None
    steps = brackets.translate(_BRACKETS_AS_STEPS)
    deepest = max(accumulate(steps, lambda depth, step: depth + step - 1, initial=0))
    if deepest > MAX_JSON_DEPTH_READ:
        raise BrokenJson(f"nested {deepest} deep, and {MAX_JSON_DEPTH} is the limit")
    if deepest > MAX_JSON_DEPTH:
        return f"nested {deepest} deep, and {MAX_JSON_DEPTH} is the limit"
    return None


def too_complex(document: str) -> str | None:
    """Why a document would not be taken for what is in it, before it is sent or stored; `None` when it would."""
    try:
        return measured(document)
    except BrokenJson as broken:
        return str(broken)


def read_object(document: str) -> JsonObject:
    """Reads a document that is one object. Raises `BrokenJson`; flaws are in the result."""
    flaw = measured(document)
    found = _object(document, _skip(document, 0), flaw)
    if _skip(document, found.end) != len(document):
        _broken("text behind the end", found.end)
    return found


def read_objects(document: str, *, at_most: int) -> list[JsonObject]:
    """Reads one object, or an array of up to `at_most` objects. Raises `BrokenJson`; flaws are in the results."""
    flaw = measured(document)
    at = _skip(document, 0)
    if document[at : at + 1] != "[":
        return [read_object(document)]
    found: list[JsonObject] = []
    at = _skip(document, at + 1)
    if document[at : at + 1] == "]":
        at += 1
    else:
        while True:
            if len(found) == at_most:
                raise BrokenJson(f"more than {at_most} frames in one message")
            one = _object(document, at, flaw)
            if flaw is not None and measured(one.text) is None:
                # Another frame of the array is too deep, or only the array around this one made it so.
                one = _object(document, at, None)
            found.append(one)
            at = _skip(document, one.end)
            mark = document[at : at + 1]
            at += 1
            if mark == "]":
                break
            if mark != ",":
                _broken("expected a comma or the end of the array", at)
            at = _skip(document, at)
    if _skip(document, at) != len(document):
        _broken("text behind the end", at)
    return found


def read_value(text: str) -> Any:
    """The parsed form of text that was read strictly once before (out of a ledger, say)."""
    value, _ = _value(text, 0)
    return value
