"""What one listener is told: where it listens, how patient it is, how much it takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from skygw.errors import StartupError
from skygw.loopback_hosts import is_loopback

KIB = 1024
MIB = 1024 * KIB

ClientResolver = Callable[[str, Sequence[str]], str | None]
"""None: a trusted proxy named something that is no address."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With `client_ca` every client must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ListenerConfig:
    """One listener. Times are seconds, sizes are bytes. Port 0 picks a free one."""

    name: str
    """Names the listener in logs and metrics: `node`, `internal`."""
    host: str
    port: int
    tls: TlsFiles | None = None
    allow_cleartext: bool = False
    """Cleartext beyond loopback was asked for (`SKYGW_ALLOW_CLEARTEXT`)."""
    behind_tls_proxy: bool = False
    """A proxy in front ends TLS (`SKYGW_BEHIND_TLS_PROXY`); all peers then share its address."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Peers that speak for others: their connections are not capped by address, the clients they name are."""
    resolve_client: ClientResolver | None = None
    """Who a request comes from, of a peer and its `X-Forwarded-For` lines in their order."""
    never_refused: Callable[[str], bool] | None = None
    """Paths by which a stop may come: no cap on its client keeps such a request out."""

    allowed_networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    """Whose connections are taken at all, proxies included: a stranger must not use up the places of those who stop
    telescopes. None: everybody's."""

    header_timeout_s: float = 10.0
    """From the first byte of a request head (or the connect) to its last."""
    keep_alive_timeout_s: float = 75.0
    """How long a connection may rest between two requests."""
    body_idle_timeout_s: float = 20.0
    """The longest silence within a request body."""
    body_min_bytes_per_s: float = 1024.0
    """A body slower than this over `body_grace_s` and more is given up. Time the app takes is not counted."""
    body_grace_s: float = 20.0
    send_timeout_s: float = 10.0
    """A peer that takes nothing of what it is sent for so long is not reading."""
    send_min_bytes_per_s: float = 1024.0
    """Nor is one that falls `send_timeout_s` behind this pace, over all it is sent while it lets us wait."""
    tls_handshake_timeout_s: float = 10.0
    linger_s: float = 2.0
    """After our last byte, how long the peer's leftovers are read so that it can see that byte."""

    max_connections: int = 4096
    max_connections_per_address: int | None = 1024
    """None: no cap per address."""
    max_header_bytes: int = 16 * KIB
    websocket_max_message_bytes: int = MIB
    websocket_violation_code: int | None = None
    """Close code for broken framing in place of RFC 6455's 1002 and 1007 (contract §5: 4500)."""
    websocket_ping_after_s: float = 10.0
    """A WebSocket from which nothing came for so long is asked for a sign of life."""
    websocket_gone_after_s: float = 25.0
    """One from which nothing came for so long is given up."""

    def is_proxy(self, peer: str) -> bool:
        """Whether this address stands for everybody behind it. Where no proxy is named, a TLS proxy may be anyone."""
        if not self.trusted_proxies:
            return self.behind_tls_proxy
        return _is_in(peer, self.trusted_proxies)

    def lets_in(self, peer: str) -> bool:
        """Whether a connection from this address is taken at all."""
        return self.allowed_networks is None or _is_in(peer, self.allowed_networks)


def _is_in(peer: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    address = ip_address(peer.partition("%")[0])  # a link-local one names its interface
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # as a dual-stack socket shows it (RFC 4291 §2.5.5.2)
    return any(address in network for network in networks)


def refuse_open_cleartext(config: ListenerConfig) -> None:
    """Raise `StartupError` if tokens would cross a network in the clear and nobody asked for that."""
    if config.tls is not None or config.allow_cleartext or config.behind_tls_proxy or is_loopback(config.host):
        return
    raise StartupError(
        f"the {config.name} listener would serve cleartext on {config.host}: "
        "give it a certificate (SKYGW_TLS_*), set SKYGW_BEHIND_TLS_PROXY if a proxy in front ends TLS, "
        "or set SKYGW_ALLOW_CLEARTEXT if this is meant"
    )
