"""What both servers are told, so that a difference between them is never one of configuration."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Times are seconds, sizes are bytes; shorter than in production where a test waits for them."""

    send_timeout_s: float = 10.0
    send_min_bytes_per_s: float = 1024.0
    header_timeout_s: float = 10.0
    body_idle_timeout_s: float = 20.0
    body_grace_s: float = 20.0
    body_min_bytes_per_s: float = 1024.0
    read_timeout_s: float | None = None
    """Hypercorn's one clock for heads, bodies and silence; off, as it is by default, unless a test is about it."""
    websocket_ping_after_s: float = 10.0
    websocket_gone_after_s: float = 25.0
    websocket_max_message_bytes: int = MIB
    max_body_bytes: int = MIB
    drain_s: float = 0.6
    told_of_signals: bool = True
    """False: started exactly as the README does, with nothing that listens to SIGTERM."""
