"""A client's upgrade to a WebSocket without any I/O: the request, and what the answer to it says (RFC 6455 §4)."""

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import h11

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 8 * 1024
"""Of a refusal: a sentence to be shown on site. What comes behind is not read."""

MAX_DETAIL_CHARS = 300
MAX_RETRY_AFTER_S = 15 * 60.0
ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class BadAnswer(Exception):
    """What came is no answer to an upgrade: the message says why."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway answered with another status than 101. `detail` is its own sentence, printable, or empty."""

    status: int
    detail: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The connection speaks frames now; `unread` are the first of them."""

    unread: bytes


class Handshake:
    """One upgrade. `host` is the authority of the URL, `target` its path and query."""

    def __init__(self, *, host: str, target: str, token: str, subprotocol: str) -> None:
        """Raises `BadAnswer` when no request can be made of these."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._key = base64.b64encode(os.urandom(16))
        self._subprotocol = subprotocol
        self._refusal: h11.Response | None = None
        self._body = bytearray()
        headers = [
            ("host", host),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", self._key.decode()),
            ("sec-websocket-protocol", subprotocol),
            ("authorization", f"Bearer {token}"),
        ]
        try:
            request = self._http.send(h11.Request(method="GET", target=target, headers=headers))
            self.request: bytes = (request or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        except (h11.LocalProtocolError, UnicodeEncodeError):
            # What h11 quotes may be the token.
            raise BadAnswer("the address or the token holds characters that no request can carry") from None

    def feed(self, data: bytes) -> Upgraded | Refused | None:
        """Takes what has come, empty at the end of the stream; `None` asks for more. Raises `BadAnswer`."""
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        self._check(event)
                        return Upgraded(bytes(self._http.trailing_data[0]))
                elif isinstance(event, h11.Response):
                    self._refusal = event
                elif isinstance(event, h11.Data):
                    self._body += event.data[: MAX_BODY_BYTES - len(self._body)]
                    if len(self._body) >= MAX_BODY_BYTES:
                        return self.refused()
                elif isinstance(event, h11.EndOfMessage):
                    return self.refused()
                else:
                    raise BadAnswer("it closed without an answer")
        except h11.RemoteProtocolError as error:
            refused = self.refused()
            if refused is not None:
                return refused  # its body is cut off, its status is not
            raise BadAnswer(f"the answer is no HTTP: {str(error)[:MAX_DETAIL_CHARS]}") from None

    def refused(self) -> Refused | None:
        """The refusal as far as it has come; `None` before its head."""
        if self._refusal is None:
            return None
        headers = dict(self._refusal.headers)
        return Refused(
            self._refusal.status_code,
            _detail(bytes(self._body)),
            _retry_after(headers.get(b"retry-after", b""), headers.get(b"date", b"")),
        )

    def _check(self, answer: h11.InformationalResponse) -> None:
        """RFC 6455 §4.1, the client's duties on the answer."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in answer.headers:
            headers.setdefault(name, []).append(value)
        connection = [token.strip().lower() for line in headers.get(b"connection", []) for token in line.split(b",")]
        accept = base64.b64encode(hashlib.sha1(self._key + ACCEPT_SUFFIX, usedforsecurity=False).digest())
        if [value.lower() for value in headers.get(b"upgrade", [])] != [b"websocket"] or b"upgrade" not in connection:
            raise BadAnswer("it switches to something else than a WebSocket")
        if headers.get(b"sec-websocket-accept") != [accept]:
            raise BadAnswer("its Sec-WebSocket-Accept does not fit the key")
        if headers.get(b"sec-websocket-extensions"):
            raise BadAnswer("it uses an extension that was not offered")
        if headers.get(b"sec-websocket-protocol") != [self._subprotocol.encode()]:
            raise BadAnswer(f"it does not speak {self._subprotocol}")


def _detail(body: bytes) -> str:
    """What the refusal says of itself, to be shown on site: one printable line."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    said = found.get("detail") if isinstance(found, dict) else None
    if not isinstance(said, str):
        return ""
    return "".join(character for character in said if character.isprintable())[:MAX_DETAIL_CHARS]


def _retry_after(value: bytes, date: bytes) -> float:
    """Seconds, or an HTTP date (RFC 9110 §10.2.3), which is read against the answer's own `Date`: the clock of a site
    may be wrong. Whatever else it is, is 0.
    """
    if value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    until, now = _moment(value), _moment(date)
    if until is None or now is None:
        return 0.0
    return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _moment(value: bytes) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
