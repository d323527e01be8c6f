"""Which request target and Host are taken, and what of them the app sees (RFC 9112 §3.2, 9110 §4.2, 3986 §3)."""

import re

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Case counts. CONNECT and TRACE serve nobody here, and the latter would say a token back (RFC 9110 §9.3.8)."""

_ENCODED = rb"%[0-9A-Fa-f]{2}"
_ORIGIN_FORM = re.compile(rb"/(?:[-A-Za-z0-9._~!$&'()*+,;=:@/?\[\]]++|" + _ENCODED + rb")*+")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)(/?)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[-A-Za-z0-9._~!$&'()*+,;=]|" + _ENCODED + rb")*)(?::[0-9]{0,5})?")


def is_host(value: bytes) -> bool:
    """Whether this is a host with at most a port; nothing at all is one too, of a client that knows no name."""
    return _HOST.fullmatch(value) is not None


def path_and_query(target: bytes, method: bytes) -> bytes | None:
    """The target in origin form, whole URLs included. None for a target that is not taken."""
    if target == b"*":
        return target if method == b"OPTIONS" else None
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None or not is_host(absolute[1]):
            return None
        target = b"/" + absolute[3]  # also where a query follows the host at once
    return target if _ORIGIN_FORM.fullmatch(target) else None


def authority(target: bytes) -> bytes | None:
    """The host a whole URL names, which counts in place of the Host field (RFC 9112 §3.2.2)."""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    return None if absolute is None else absolute[1]
