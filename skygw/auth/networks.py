"""Where a request comes from, and whether that network is let in, trusting no header more than its sender.

Pure: addresses and networks in, answers out.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_ADDRESS = 64
"""Characters: 45 of an IPv6 address, and the name of a zone behind it."""

_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as a dual-stack socket reports them (RFC 4291 §2.5.5.2)."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation; a bare address is a network of one. Raises `ValueError` with a sentence."""
    return tuple(_parse_network(text.strip()) for text in texts)


def _parse_network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"“{text}” is not a network such as 10.0.0.0/8 or 2001:db8::/32") from None
        raise ValueError(f"“{text}” is an address inside {meant}, which is how to write that network") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[-4:], network.prefixlen - 96))
    return network


def parse_address(text: str) -> Address | None:
    """The address in `text`, an IPv4-mapped IPv6 address as the IPv4 one it is; None if it is no address."""
    return _parsed(text) if len(text) <= LONGEST_ADDRESS else None


@lru_cache(maxsize=4_096)
def _parsed(text: str) -> Address | None:
    """Remembered, because a caller who comes back comes from where it came from."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def allowed(address: Address | None, networks: Collection[Network]) -> bool:
    """Whether `address` lies in one of `networks`; an unknown address lies in none."""
    return address is not None and any(address in network for network in networks)


def client_address(peer: str, forwarded_for: Sequence[str], trusted_proxies: Collection[Network]) -> Address | None:
    """The address a request really comes from, as far as trusted parties vouch for it.

    `peer` is the socket's other end; `forwarded_for` the values of every `X-Forwarded-For` header in the
    order they came. The header counts only if the peer is a trusted proxy, and is walked from the right:
    each trusted hop vouches for the one to its left, and the first that is not trusted is the client. None
    means that a trusted proxy vouched for something that is no address, or that the peer has none: nobody is
    let in by network then.
    """
    address = parse_address(peer)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed([hop for hop in hops if hop]):
        if not allowed(address, trusted_proxies):
            return address
        address = parse_address(_without_port(hop))
    return address


def _without_port(hop: str) -> str:
    """Some proxies add the client's port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
