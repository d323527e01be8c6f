"""JSON spelled as no library of ours spells it, and read without any of ours: only who carries bytes hands it on."""

import json
import re
from random import Random
from typing import Any
from zlib import crc32

ODD_NUMBERS = ("1.50E+2", "-0.0", "1e-7", "0.10", "12345678901234567890", "6.02e23")
"""Written as a number where the value says `{"odd": <index>}`: any reader would print each of them in another way."""

_SPACES = ("", "", " ", "  ", "\t", "\n ", "\r\n")
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


def odd_text(value: dict[str, Any]) -> str:
    """An object in an odd spelling, the same one each time: odd spaces, escapes where none are needed."""
    plain = json.dumps(value, sort_keys=True)
    return _written(value, Random(crc32(plain.encode())))  # noqa: S311 - must repeat, guards nothing


def _written(value: Any, chance: Random) -> str:
    def space() -> str:
        return chance.choice(_SPACES)

    match value:
        case {"odd": int(which)}:
            return ODD_NUMBERS[which % len(ODD_NUMBERS)]
        case dict():
            members = [
                f"{space()}{_string(key, chance)}{space()}:{space()}{_written(item, chance)}{space()}"
                for key, item in value.items()
            ]
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(space() + _written(item, chance) for item in value) + "]"
        case str():
            return _string(value, chance)
        case _:
            return json.dumps(value)


def _string(text: str, chance: Random) -> str:
    if len(text) > 1_000:
        return json.dumps(text)
    return '"' + "".join(_character(character, chance) for character in text) + '"'


def _character(character: str, chance: Random) -> str:
    if character == "/" and chance.random() < 0.5:
        return "\\/"
    if character in '"\\' or character < " ":
        return json.dumps(character)[1:-1]
    if chance.random() < 0.05:
        units = character.encode("utf-16-be").hex()
        escape = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
        return escape.upper().replace("\\U", "\\u") if chance.random() < 0.5 else escape
    return character


def raw_members(text: str) -> dict[str, str]:
    """The members of one object, each as the text that stands there. Raises `ValueError`."""
    members: dict[str, str] = {}
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError(f"no object: {text[:80]!r}")
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _decoder.raw_decode(text, at)
        at = _after_space(text, at)
        if text[at : at + 1] != ":" or not isinstance(name, str) or name in members:
            raise ValueError(f"no member at {at}: {text[at - 40 : at + 40]!r}")
        begin = _after_space(text, at + 1)
        _, end = _decoder.raw_decode(text, begin)
        members[name] = text[begin:end]
        at = _after_space(text, end)
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
    if text[at + 1 :].strip(" \t\r\n"):
        raise ValueError(f"more than an object: {text[at + 1 : at + 80]!r}")
    return members


def _after_space(text: str, at: int) -> int:
    found = _WHITESPACE.match(text, at)
    return at if found is None else found.end()
