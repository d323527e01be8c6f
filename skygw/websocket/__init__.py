"""RFC 6455 over one TCP connection, the same for both ends: knows neither the gateway nor a node."""

from skygw.websocket.connection import Fault, LinkClosed, Rhythm, Sent, WebSocket
from skygw.websocket.frames import Code
from skygw.websocket.transport import (
    ConnectionLost,
    NotReading,
    Patience,
    PlainTransport,
    TlsTransport,
    Transport,
    tune,
)

__all__ = [
    "Code",
    "ConnectionLost",
    "Fault",
    "LinkClosed",
    "NotReading",
    "Patience",
    "PlainTransport",
    "Rhythm",
    "Sent",
    "TlsTransport",
    "Transport",
    "WebSocket",
    "tune",
]
