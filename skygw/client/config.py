"""What a node client must be told before it can connect."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from skygw.ids import InstallId, InstanceUid
from skygw.protocol.limits import KIB, MIB
from skygw.protocol.node_frames import NodeType


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. `lifetime_s` is what OAuth calls `expires_in`; with it the token is renewed in time."""

    value: str
    lifetime_s: float | None = None

    def __repr__(self) -> str:
        return f"Token(…, lifetime_s={self.lifetime_s})"


TokenProvider = Callable[[], Awaitable[str | Token]]
"""Asked before every connect and for every renewal; after a 401 it is asked again. May raise: it is asked later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Frozen, checked when made; raises `ValueError` with a sentence.

    `url` is the whole address, `wss://…/v1/ws/node`. `state_dir` belongs to this program alone.
    `ssl_context` is for `wss` with a private authority; the system's authorities are trusted otherwise. Without an
    `instance_uid` one is made at the first start and kept in `state_dir`.

    Below `keep_free_bytes` on the disk of `state_dir` lines of the log and progress are left out, so that results find
    room; 0 lets everything in. Uploads go as fast as adds at most `upload_delay_s` to the round trip of the socket, and
    never faster than `upload_bytes_per_s`.

    `post_every_s` is for a site that cannot hold a socket: what is published is posted over HTTP so often, and no
    socket is asked for. Neither commands nor stops reach such a node.
    """

    url: str
    install_id: InstallId
    node_type: NodeType
    software_version: str
    token: TokenProvider
    state_dir: Path
    instance_uid: InstanceUid | None = None
    features: tuple[str, ...] = ()
    graph_revision: int | None = None
    link_loss_after_s: float = 300.0
    ssl_context: ssl.SSLContext | None = None
    outbox_bytes: int = 64 * MIB
    keep_free_bytes: int = 32 * MIB
    upload_delay_s: float = 0.1
    upload_bytes_per_s: float | None = None
    post_every_s: float | None = None
    connect_timeout_s: float = 20.0
    disconnect_timeout_s: float = 0.5

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"The gateway's address must begin with ws:// or wss:// and name a host: {self.url!r}")
        if self.link_loss_after_s < 0:
            raise ValueError("link_loss_after_s must not be negative.")
        if self.outbox_bytes < MIB:
            raise ValueError("outbox_bytes must be at least 1 MiB.")
        if self.keep_free_bytes < 0:
            raise ValueError("keep_free_bytes must not be negative.")
        if self.post_every_s is not None and not self.post_every_s > 0:
            raise ValueError("post_every_s must be more than nothing.")
        if not self.upload_delay_s > 0:
            raise ValueError("upload_delay_s must be more than nothing.")
        if self.upload_bytes_per_s is not None and not self.upload_bytes_per_s >= 8 * KIB:
            raise ValueError("upload_bytes_per_s must be at least 8 KiB.")
