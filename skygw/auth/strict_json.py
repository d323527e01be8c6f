"""Reads the JSON of tokens, key sets and issuer answers, refusing what two readers could read differently.

Duplicate keys, NaN, infinities, U+0000 and lone surrogates are refused, as at every other door.
"""

import json
import math
from typing import Any, NoReturn

_MAX_INT_CHARS = 64
"""No number in these documents needs more digits, and converting very many costs quadratic time."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises `ValueError` with a sentence that repeats nothing of the content."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short_int,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError:
        # The library's own message is dropped, and with it the exception that carries the whole document.
        raise ValueError("it is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    _refuse_unstorable_text(value)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it names the same member twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("it holds a number that JSON does not know")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds a number too large to be one")
    return number


def _short_int(text: str) -> int:
    if len(text) > _MAX_INT_CHARS:
        raise ValueError("it holds a number too large to be one")
    return int(text)


def _refuse_unstorable_text(value: dict[str, Any]) -> None:
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in item):
            raise ValueError("it holds text that no database can store")
