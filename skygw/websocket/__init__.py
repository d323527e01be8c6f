"""RFC 6455 over one TCP connection, the same for both ends: knows neither the gateway nor a node."""

from skygw.websocket.connection import WebSocket
from skygw.websocket.frames import Code
from skygw.websocket.keeping import Rhythm
from skygw.websocket.outcomes import Fault, LinkClosed, Sent
from skygw.websocket.tls_transport import TlsTransport
from skygw.websocket.transport import (
    ConnectionLost,
    NotReading,
    Patience,
    PlainTransport,
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
