"""How much of everything a run does, and which parts there are."""

from dataclasses import dataclass

PARTS = (
    "echo",
    "get",
    "connects",
    "memory",
    "rpc",
    "out",
    "commands",
    "subscriptions",
    "snapshots",
    "deliveries",
    "latency",
    "durable",
    "resume",
    "uploads",
)
TELEMETRY = frozenset({"subscriptions", "snapshots", "deliveries", "latency", "durable", "resume"})

MIB = 1024 * 1024

MESSAGE_BYTES = 200
"""The text of an echoed message."""

PIPELINED_SOCKETS, PIPELINED = 32, 16
"""The echo in which each socket sends 16 messages in one write and waits for all of them."""


@dataclass(frozen=True)
class Plan:
    """`load_s` is the time of each load; every repetition runs on servers of its own."""

    repetitions: int
    load_s: float
    sockets: tuple[int, ...]
    callers: tuple[int, ...]
    connects: int
    idle_sockets: int
    nodes: int
    """Which publish snapshots; half of them report log lines, and a tenth are followed by subscribers."""
    subscribers: tuple[int, ...]
    idle_subscriptions: int
    missed_events: int
    stops: int
    """Of one site on each line, without anything else on the line and with so many bytes coming up."""
    upload_bytes: int
    sent_bytes: int
    """In the uploads over HTTP, all of them together."""


FULL = Plan(
    repetitions=5,
    load_s=2.0,
    sockets=(1, 32, 256, 2_000),
    callers=(1, 32),
    connects=400,
    idle_sockets=400,
    nodes=200,
    subscribers=(10, 100),
    idle_subscriptions=2_000,
    missed_events=10_000,
    stops=50,
    upload_bytes=64 * MIB,
    sent_bytes=512 * MIB,
)
QUICK = Plan(
    repetitions=2,
    load_s=0.6,
    sockets=(1, 32, 256),
    callers=(1, 32),
    connects=100,
    idle_sockets=100,
    nodes=200,
    subscribers=(10, 100),
    idle_subscriptions=1_000,
    missed_events=10_000,
    stops=15,
    upload_bytes=64 * MIB,
    sent_bytes=256 * MIB,
)
TINY = Plan(
    repetitions=1,
    load_s=0.05,
    sockets=(1, 2),
    callers=(1,),
    connects=3,
    idle_sockets=3,
    nodes=4,
    subscribers=(5,),
    idle_subscriptions=20,
    missed_events=20,
    stops=2,
    upload_bytes=MIB // 4,
    sent_bytes=2 * MIB,
)
"""For the smoke test: its numbers mean nothing."""
