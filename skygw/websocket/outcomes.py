"""What those who use a link are told of it: how far a write came, and how the link ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """What a peer did that ended its link."""

    BROKE_A_RULE = "broke a rule"
    DOES_NOT_READ = "does not read"
    GONE = "gone"


class LinkClosed(Exception):
    """There is no link any more. `code` is that of the first close frame, whoever sent it; None: there was none.

    With a `fault` it was this end that gave up, and `reason` says why.
    """

    def __init__(self, code: int | None, reason: str = "", fault: Fault | None = None) -> None:
        said = "without a word" if code is None else f"with {code}"
        super().__init__(f"the link ended {said}{': ' if reason else ''}{reason}")
        self.code = code
        self.reason = reason
        self.fault = fault


@dataclass(slots=True)
class Sent:
    """How far one `send` came, however it ended. What is neither whole nor doubtful was not sent."""

    whole: int = 0
    """Messages of which the last byte was handed to the kernel: the first so many."""
    doubtful: int = 0
    """Messages behind those of which a part was, or may have been, handed over."""

    def measure(self, frames: Sequence[bytes], *, certain: int, possible: int) -> None:
        """Of these frames, one message each, so many bytes were handed over, and so many at most."""
        at = 0
        for one in frames:
            if at + len(one) <= certain:
                self.whole += 1
            elif at < possible:
                self.doubtful += 1
            at += len(one)
