"""What can be wrong with a request about an upload, beyond what can be wrong with any request."""

from dataclasses import dataclass

from skygw.errors import IllegalTransition, Invalid, Retry


class OffsetMismatch(IllegalTransition):
    """The body begins elsewhere than the upload ends; `expected` is where it ends."""

    retry_unless_told = Retry.QUERY_FIRST

    def __init__(self, *, expected: int, provided: int, is_complete: bool) -> None:
        super().__init__(f"The upload ends at {expected}, and this body begins at {provided}.")
        self.expected = expected
        self.provided = provided
        self.is_complete = is_complete


class LengthMismatch(Invalid):
    """What is said about the whole length does not agree with what was said before, with the body, or with itself."""


class AlreadyComplete(IllegalTransition):
    """A complete upload takes nothing more."""


class UploadFailed(IllegalTransition):
    """The upload has failed and takes nothing more; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Digest:
    """As the client gave it. `algorithm` as Python's hashlib calls it; `label` and `field` as the client wrote them."""

    algorithm: str
    value: bytes
    label: str
    field: str


class DigestMismatch(Invalid):
    """These are not the bytes that the digest is of. Of one body: none of it was appended. Of the whole: the upload has
    failed.
    """

    def __init__(self, message: str, *, digest: Digest, is_of_whole: bool) -> None:
        super().__init__(message)
        self.digest = digest
        self.is_of_whole = is_of_whole


class BodyCut(Exception):
    """The rest of a body will not come: its sender has gone, or was too slow."""


class Superseded(Exception):
    """A newer request is about the same upload: this one is at an end, and nothing is answered to it."""
