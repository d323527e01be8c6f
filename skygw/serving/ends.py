"""Why a connection ended or was never taken, as closed sets: the words of log lines and metrics."""

from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """What ended a connection; the first reason wins."""

    FINISHED = "finished"
    PEER_LEFT = "peer_left"
    IDLE = "idle"
    DRAINED = "drained"
    ABORTED = "aborted"
    GAVE_WAY = "gave_way"
    REFUSED = "refused"
    SLOW_HEADER = "slow_header"
    SLOW_BODY = "slow_body"
    NOT_READING = "not_reading"
    GONE = "gone"
    PROTOCOL = "protocol"
    TLS = "tls"
    FAULT = "fault"

    @property
    def is_peers_fault(self) -> bool:
        """True where the peer did what it may not: one warning line, never a traceback."""
        return self in _PEERS_FAULT


_PEERS_FAULT = frozenset({End.SLOW_HEADER, End.SLOW_BODY, End.NOT_READING, End.GONE, End.PROTOCOL, End.TLS})


class Refusal(StrEnum):
    """Why an accepted socket was closed before a byte of it was read, or a request before any app saw it."""

    STRANGER = "address_not_allowed"
    TOO_MANY = "too_many_connections"
    TOO_MANY_FROM_ADDRESS = "too_many_connections_from_address"


@dataclass(frozen=True)
class Ending:
    """How one connection ended; `detail` is a sentence for the log, empty where the reason says it all."""

    why: End
    detail: str = ""


class PeerFaultError(Exception):
    """The peer broke a rule: its connection ends, nobody else notices."""

    def __init__(self, why: End, detail: str) -> None:
        super().__init__(detail)
        self.ending = Ending(why, detail)
