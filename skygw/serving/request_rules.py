"""What a request that could be read must not say all the same, and what its headers mean (RFC 9110, 9112, 6455)."""

import h11

from skygw.serving.field_lines import MalformedError
from skygw.serving.request_target import METHODS, authority, is_host, path_and_query
from skygw.serving.websocket_stream import is_valid_key

WEBSOCKET_VERSION = b"13"


def values_of(request: h11.Request, name: bytes) -> list[bytes]:
    """Of all lines of that name, which is in lower case, in their order."""
    return [value for found, value in request.headers if found == name]


def headers_as_meant(request: h11.Request) -> list[tuple[bytes, bytes]]:
    """With the host of a whole URL in the Host header's place (RFC 9112 §3.2.2)."""
    host = authority(request.target)
    if host is None:
        return list(request.headers)
    return [(b"host", host), *(field for field in request.headers if field[0] != b"host")]


def asks_for_websocket(request: h11.Request) -> bool:
    """In HTTP/1.0 an upgrade must be ignored (RFC 9110 §7.8)."""
    return (
        request.http_version != b"1.0"
        and b"websocket" in _list_of(request, b"upgrade")
        and b"upgrade" in _list_of(request, b"connection")
    )


def check_request(request: h11.Request) -> None:
    """Raise `MalformedError` for what is refused whatever the app would say."""
    if not request.http_version.startswith(b"1."):
        raise MalformedError(505, "Only HTTP/1.1 is spoken here.")
    if request.method not in METHODS:
        raise MalformedError(501, "This method is not known here; methods are written in capitals.")
    if path_and_query(request.target, request.method) is None:
        raise MalformedError(400, "The request target is neither a path nor a URL.")
    hosts = values_of(request, b"host")
    if not all(is_host(host) for host in hosts) or (not hosts and request.http_version != b"1.0"):
        raise MalformedError(400, "The Host header is missing or is no host.")
    expected = _list_of(request, b"expect")
    if request.http_version != b"1.0" and any(what != b"100-continue" for what in expected):
        raise MalformedError(417, "Nothing can be expected here but 100-continue.")


def check_upgrade(request: h11.Request, *, has_body: bool, is_followed: bool) -> None:
    """Raise `MalformedError` unless this is the opening of a WebSocket (RFC 6455 §4.2.1) and nothing more.

    `is_followed`: bytes lie behind it already, which cannot be frames yet.
    """
    if request.method != b"GET":
        raise MalformedError(400, "A WebSocket upgrade is a GET.")
    if has_body:
        raise MalformedError(400, "A WebSocket upgrade has no body.")
    if is_followed:
        raise MalformedError(400, "A frame came before the upgrade was answered.")
    versions = values_of(request, b"sec-websocket-version")
    if len(versions) > 1:
        raise MalformedError(400, "A WebSocket upgrade has one Sec-WebSocket-Version.")
    keys = values_of(request, b"sec-websocket-key")
    if len(keys) != 1 or not is_valid_key(keys[0]):
        raise MalformedError(400, "A WebSocket upgrade needs one Sec-WebSocket-Key of 16 bytes in base64.")
    if versions != [WEBSOCKET_VERSION]:
        spoken = ((b"sec-websocket-version", WEBSOCKET_VERSION),)
        raise MalformedError(426, "Only WebSocket version 13 is spoken here.", headers=spoken)


def _list_of(request: h11.Request, name: bytes) -> list[bytes]:
    """The members of a header that is a list of words, in lower case."""
    members = [member.strip().lower() for value in values_of(request, name) for member in value.split(b",")]
    return [member for member in members if member]
