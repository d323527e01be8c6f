"""Where peers meet the process: HTTP/1.1 listeners on Hypercorn's protocols, each connection under guard."""

from skygw.serving.config import ListenerConfig, TlsFiles
from skygw.serving.ends import End, Refusal
from skygw.serving.handle import EXTENSION, ConnectionHandle
from skygw.serving.limits import BodyLimit
from skygw.serving.listener import Listener
from skygw.serving.metrics import ConnectionMetrics, NoMetrics

__all__ = [
    "EXTENSION",
    "BodyLimit",
    "ConnectionHandle",
    "ConnectionMetrics",
    "End",
    "Listener",
    "ListenerConfig",
    "NoMetrics",
    "Refusal",
    "TlsFiles",
]
