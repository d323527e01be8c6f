"""What the two ways of speaking about uploads have in common: what a request is read from and an answer is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from skygw.errors import GatewayError, Invalid
from skygw.observing.upload_store import Upload
from skygw.observing.uploads import Append, UploadRules, Wanted
from skygw.routers.gates import Scope, headers_of

UPLOADS_PATH = "/v1/nodes/me/uploads"

Headers = list[tuple[str, str]]


class UnsupportedType(Invalid):
    """The body is of a type that cannot be appended."""


class UnsupportedVersion(Invalid):
    """A version of the dialect that is not spoken here."""


class UnsupportedDigest(Invalid):
    """No digest here is of an algorithm that can be checked; `algorithms` are those that were sent, in `field`."""

    def __init__(self, message: str, *, field: str, algorithms: Sequence[str]) -> None:
        super().__init__(message)
        self.field = field
        self.algorithms = algorithms


class ImpossibleDigest(Invalid):
    """No digest of this algorithm looks like that."""

    def __init__(self, message: str, *, field: str, algorithm: str) -> None:
        super().__init__(message)
        self.field = field
        self.algorithm = algorithm


@dataclass(frozen=True, slots=True)
class Asked:
    """The headers of a request."""

    scope: Scope

    def one(self, name: str) -> str | None:
        """Raises `Invalid` if it was sent more than once: who reads the first and who the last must not differ."""
        values = headers_of(self.scope, name.lower().encode())
        if len(values) > 1:
            raise Invalid(f"The header {name} was sent more than once.")
        return values[0].strip(" \t") if values else None

    def all(self, name: str) -> str | None:
        """A list may stand in several lines, which are one (RFC 9110 §5.3)."""
        values = headers_of(self.scope, name.lower().encode())
        return ", ".join(values) if values else None

    @property
    def body_length(self) -> int | None:
        """`None`: the body says so itself, at its end."""
        if headers_of(self.scope, b"transfer-encoding"):
            return None
        return int(next(iter(headers_of(self.scope, b"content-length")), "0"))

    @property
    def content_type(self) -> str | None:
        """In lower case, without parameters."""
        value = self.one("Content-Type")
        return None if value is None else value.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Creation:
    """A request for an upload. `first` is what to append at once, if anything is."""

    wanted: Wanted
    first: Append | None


class Dialect(Protocol):
    """How requests are read and answers are written. What reads raises `Invalid`."""

    def check(self, asked: Asked) -> None: ...

    def method(self, asked: Asked, method: str) -> str:
        """What is really asked for."""
        ...

    def creation(self, asked: Asked) -> Creation: ...

    def append(self, asked: Asked) -> Append: ...

    def created(self, upload: Upload, rules: UploadRules, *, first: Append | None) -> tuple[int, Headers]: ...

    def appended(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]: ...

    def seen(self, upload: Upload, rules: UploadRules) -> tuple[int, Headers]: ...

    def always(self) -> Headers:
        """In every answer."""
        ...

    def status_of(self, error: GatewayError) -> int | None:
        """Where it has its own."""
        ...

    def refused(self, error: GatewayError, rules: UploadRules) -> Headers: ...


def upload_url(upload: Upload) -> str:
    """Relative to the listener, whatever it is called from outside."""
    return f"{UPLOADS_PATH}/{upload.uid}"
