"""Carries the caller's trace on to the node: W3C Trace Context (Recommendation, 23 November 2021), §3.2 `traceparent`.

Pure: randomness comes in as an argument. `tracestate` is not read; a vendor's own data ends at the gateway.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Fresh = Callable[[int], bytes]
"""Gives that many random bytes."""

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

_SAMPLED = 0x01

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)


@dataclass(frozen=True)
class Trace:
    """One operation's place in a trace. Ids are lower-case hexadecimal; no `parent_span_id` means it began here."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    sampled: bool

    @classmethod
    def parent(cls, header: str | None, *, fresh: Fresh = secrets.token_bytes) -> Self:
        """Join the trace a request came with, as a new span in it; begin one if there is none or it is malformed."""
        read = _read(header)
        if read is None:
            return cls(_id(TRACE_ID_BYTES, fresh), _id(SPAN_ID_BYTES, fresh), None, sampled=False)
        trace_id, caller_span_id, sampled = read
        return cls(trace_id, _id(SPAN_ID_BYTES, fresh), caller_span_id, sampled)

    def child(self, *, fresh: Fresh = secrets.token_bytes) -> Self:
        """A new span under this one, for what is sent on."""
        return type(self)(self.trace_id, _id(SPAN_ID_BYTES, fresh), self.span_id, self.sampled)

    @property
    def traceparent(self) -> str:
        """This span as a header or frame field, version 00. Only the flag the version defines is passed on."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"


def _read(header: str | None) -> tuple[str, str, bool] | None:
    """Trace id, span id and sampled flag; None if §3.2.2 calls the header invalid."""
    match = _TRACEPARENT.fullmatch(header or "")
    if match is None:
        return None
    # A later version may add fields at the end; version 00 has none, and ff is forbidden.
    if match["version"] == "ff" or (match["version"] == "00" and match["rest"] is not None):
        return None
    if not int(match["trace"], 16) or not int(match["span"], 16):
        return None
    return match["trace"], match["span"], bool(int(match["flags"], 16) & _SAMPLED)


def _id(length: int, fresh: Fresh) -> str:
    # All zeros is the one value that means «none» (§3.2.2.3).
    return fresh(length).hex().replace("0" * (2 * length), "0" * (2 * length - 1) + "1")
