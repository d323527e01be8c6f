"""Query parameters that routes of several rooms read: a uid, a word of a few, a moment."""

from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from quart import request

from skygw.protocol.frame import Timestamp
from skygw.routers.schemas import invalid

_MOMENT: TypeAdapter[datetime] = TypeAdapter(Timestamp)

WordT = TypeVar("WordT", bound=StrEnum)


def asked_uid(name: str) -> UUID | None:
    """Raises `Invalid`."""
    if name not in request.args:
        return None
    try:
        return UUID(request.args[name])
    except ValueError:
        raise invalid(f"{name} must be a UUID.", "query", name) from None


def asked_word(name: str, words: type[WordT]) -> WordT | None:
    """Raises `Invalid`."""
    if name not in request.args:
        return None
    try:
        return words(request.args[name])
    except ValueError:
        raise invalid(f"{name} must be one of {', '.join(words)}.", "query", name) from None


def asked_moment(name: str) -> datetime | None:
    """An RFC 3339 time with an offset. Raises `Invalid`."""
    if name not in request.args:
        return None
    try:
        return _MOMENT.validate_python(request.args[name])
    except ValidationError:
        raise invalid(f"{name} must be an RFC 3339 time with an offset.", "query", name) from None
