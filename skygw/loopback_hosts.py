"""Whether a host stays on this machine, decided in one place, because cleartext and development keys depend on it."""

from ipaddress import IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach `host`. A name other than `localhost` is not taken on trust."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
