"""What a caller says of its trace, as far as it is one: a malformed header must not refuse a request, or even a stop.

W3C Trace Context, §3.2 `traceparent`: version, trace id, parent id, flags; a newer version may carry more behind them.
"""

import re

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,150})?"
)


def carried_traceparent(said: str | None) -> str | None:
    """The header if it is well formed, else `None`: §4.3 says to begin a new trace then."""
    return said if said is not None and _TRACEPARENT.fullmatch(said) else None


def trace_id_of(said: str | None) -> str | None:
    """Its trace id, 32 hexadecimal digits."""
    match = None if said is None else _TRACEPARENT.fullmatch(said)
    return None if match is None else match[1]
