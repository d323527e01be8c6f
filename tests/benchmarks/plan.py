"""How much one run measures: enough to tell a change from noise, or just enough to see that everything works."""

from dataclasses import dataclass

PAYLOAD_BYTES = 1_024
"""What is echoed, and what a node answers with."""

CALLERS = (1, 32)


@dataclass(frozen=True)
class Plan:
    """`load_s` is the time of each load; every repetition runs on servers of its own."""

    repetitions: int
    load_s: float
    connects: int
    idle_connections: int
    at_most_s: float
    """The run is given up after this."""


FULL = Plan(repetitions=5, load_s=3.0, connects=300, idle_connections=300, at_most_s=240.0)
QUICK = Plan(repetitions=2, load_s=0.8, connects=100, idle_connections=100, at_most_s=40.0)
TINY = Plan(repetitions=1, load_s=0.05, connects=3, idle_connections=3, at_most_s=40.0)
"""For the smoke test: its numbers mean nothing."""
