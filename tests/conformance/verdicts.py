"""What the suite said of each case, and whether that is what both ends of ours owe."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

NOT_OFFERED = "UNIMPLEMENTED"
ACCEPTED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
ACCEPTED_CLOSES = frozenset({"OK", "INFORMATIONAL"})
COMPRESSION_GROUPS = frozenset({"12", "13"})

CASES = 301
COMPRESSION_CASES = 216


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case. `behavior` and `close` are Autobahn's words for the messages and for the closing handshake."""

    case: str
    behavior: str
    close: str

    @property
    def group(self) -> str:
        return self.case.partition(".")[0]

    @property
    def is_of_compression(self) -> bool:
        return self.group in COMPRESSION_GROUPS

    @property
    def passes(self) -> bool:
        """Compression is owed to nobody, and must not be taken up."""
        behaviors = {NOT_OFFERED} if self.is_of_compression else ACCEPTED
        return self.behavior in behaviors and self.close in ACCEPTED_CLOSES


def failures(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.passes]


def is_whole(verdicts: Iterable[Verdict]) -> bool:
    """Whether every case of the suite has a verdict."""
    counted = Counter(verdict.is_of_compression for verdict in verdicts)
    return counted[False] == CASES and counted[True] == COMPRESSION_CASES
