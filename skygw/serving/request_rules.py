"""What a request that could be read must not say all the same, and what its headers mean (RFC 9110, 9112, 6455)."""

import base64
import binascii

import h11

from skygw.serving.field_lines import MalformedError
from skygw.serving.request_target import METHODS, authority, is_host, path_and_query

WEBSOCKET_VERSION = b"13"
KEY_BYTES = 16


class RequestHead:
    """A request head, taken apart once. Raises `MalformedError` for what is refused whatever the app would say."""

    def __init__(self, request: h11.Request) -> None:
        self.method = request.method
        self.version = request.http_version
        self.is_of_1_0 = request.http_version == b"1.0"
        self.fields: list[tuple[bytes, bytes]] = list(request.headers)
        """Names in lower case."""
        if not self.version.startswith(b"1."):
            raise MalformedError(505, "Only HTTP/1.1 is spoken here.")
        if self.method not in METHODS:
            raise MalformedError(501, "This method is not known here; methods are written in capitals.")
        target = path_and_query(request.target, self.method)
        if target is None:
            raise MalformedError(400, "The request target is neither a path nor a URL.")
        self.target = target
        """In origin form."""
        self._host = None if request.target.startswith(b"/") else authority(request.target)
        self._names = {name for name, _ in self.fields}
        hosts = self.values_of(b"host")
        if not all(is_host(host) for host in hosts) or (not hosts and not self.is_of_1_0):
            raise MalformedError(400, "The Host header is missing or is no host.")
        if not self.is_of_1_0 and any(what != b"100-continue" for what in self._list_of(b"expect")):
            raise MalformedError(417, "Nothing can be expected here but 100-continue.")
        # In HTTP/1.0 an upgrade must be ignored (RFC 9110 §7.8).
        self.asks_for_websocket = (
            not self.is_of_1_0
            and b"websocket" in self._list_of(b"upgrade")
            and b"upgrade" in self._list_of(b"connection")
        )

    def values_of(self, name: bytes) -> list[bytes]:
        """Of all lines of that name, which is in lower case, in their order."""
        return [value for found, value in self.fields if found == name] if name in self._names else []

    def fields_as_meant(self) -> list[tuple[bytes, bytes]]:
        """With the host of a whole URL in the Host header's place (RFC 9112 §3.2.2)."""
        if self._host is None:
            return self.fields
        return [(b"host", self._host), *(field for field in self.fields if field[0] != b"host")]

    def _list_of(self, name: bytes) -> list[bytes]:
        """The members of a header that is a list of words, in lower case."""
        members = [member.strip().lower() for value in self.values_of(name) for member in value.split(b",")]
        return [member for member in members if member]


def check_upgrade(head: RequestHead, *, has_body: bool, is_followed: bool) -> None:
    """Raise `MalformedError` unless this is the opening of a WebSocket (RFC 6455 §4.2.1) and nothing more.

    `is_followed`: bytes lie behind it already, which cannot be frames yet.
    """
    if head.method != b"GET":
        raise MalformedError(400, "A WebSocket upgrade is a GET.")
    if has_body:
        raise MalformedError(400, "A WebSocket upgrade has no body.")
    if is_followed:
        raise MalformedError(400, "A frame came before the upgrade was answered.")
    versions = head.values_of(b"sec-websocket-version")
    if len(versions) > 1:
        raise MalformedError(400, "A WebSocket upgrade has one Sec-WebSocket-Version.")
    keys = head.values_of(b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise MalformedError(400, "A WebSocket upgrade needs one Sec-WebSocket-Key of 16 bytes in base64.")
    if versions != [WEBSOCKET_VERSION]:
        spoken = ((b"sec-websocket-version", WEBSOCKET_VERSION),)
        raise MalformedError(426, "Only WebSocket version 13 is spoken here.", headers=spoken)


def _is_key(value: bytes) -> bool:
    """Sixteen bytes in base64 (RFC 6455 §4.1)."""
    try:
        return len(base64.b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
