"""How what happens to a subscription is written, for WebSockets and for Server-Sent Events."""

from json.encoder import encode_basestring
from typing import Protocol

from pydantic.alias_generators import to_camel

from skygw.protocol.json_text import compact
from skygw.protocol.streams import EndReason, StaleReason, StreamName
from skygw.telemetry.fields import only_fields
from skygw.telemetry.log import LogEvent
from skygw.telemetry.value import Value, utc


class Dialect(Protocol):
    """Writes messages. `None`: this door has no word for it. `prev` and `position` are text as subscribers carry it."""

    def value(
        self, subscription: str, value: Value, *, position: str, prev: str | None, fields: tuple[str, ...] | None
    ) -> str | None: ...

    def event(self, subscription: str, event: LogEvent, *, position: str, prev: str | None) -> str | None: ...

    def gap(
        self,
        subscription: str,
        *,
        position: str,
        prev: str | None,
        missing: int | None,
        reason: str,
        event: LogEvent | None = None,
    ) -> str | None: ...

    def live(self, subscription: str, *, position: str, prev: str | None) -> str | None: ...

    def stale(
        self, subscription: str, value: Value, *, position: str, prev: str | None, reason: StaleReason
    ) -> str | None: ...

    def ended(self, subscription: str, *, position: str | None, reason: EndReason, message: str) -> str | None: ...


class TextDialect:
    """One JSON object per message: snake_case, or camelCase for HTTP. Without `extensions` as published: no kinds of
    ours; an end is then an `error`, and a value that became stale is said again and says so.
    """

    def __init__(self, *, camel: bool = False, extensions: bool = True) -> None:
        self._extensions = extensions
        spell = to_camel if camel else str
        self._names = {
            name: spell(name)
            for name in (
                *("subscription_id", "install_id", "observed_at", "received_at", "max_silence_s"),
                "last_observed_at",
            )
        }
        self._subscription_id = self._names["subscription_id"]
        self._kinds = {stream: f"event_{stream.value}" for stream in StreamName}

    def _framed(self, kind: str, position: str | None, text: str) -> str:  # noqa: ARG002 - for those who frame
        """What leaves the door: here the text itself."""
        return text

    def _said(self, kind: str, subscription: str, position: str, prev: str | None, rest: str) -> str:
        before = "null" if prev is None else f'"{prev}"'
        return self._framed(
            kind,
            position,
            f'{{"kind":"{kind}","{self._subscription_id}":{encode_basestring(subscription)},'
            f'"position":"{position}","prev":{before}{rest}',
        )

    def value(
        self, subscription: str, value: Value, *, position: str, prev: str | None, fields: tuple[str, ...] | None
    ) -> str | None:
        if fields is None:
            rest = value.tails.get(self)
            if rest is None:
                rest = value.tails[self] = self._rest(value, value.data)
        else:
            rest = self._rest(value, only_fields(value.data, fields))
        return self._said(self._kinds[value.stream], subscription, position, prev, rest)

    def _rest(self, value: Value, data: str) -> str:
        """What is the same for everybody; `data` verbatim, times in RFC 3339 and UTC."""
        names = self._names
        silence = "" if value.max_silence_s is None else f',"{names["max_silence_s"]}":{float(value.max_silence_s)!r}'
        stale = "" if value.stale is None else f',"stale":"{value.stale.value}"'
        return (
            f',"{names["install_id"]}":"{value.install_id}"{stale}{silence},'
            f'"{names["observed_at"]}":"{utc(value.observed_at)}","{names["received_at"]}":"{utc(value.received_at)}",'
            f'"data":{data}}}'
        )

    def event(self, subscription: str, event: LogEvent, *, position: str, prev: str | None) -> str | None:
        names = self._names
        stream = StreamName.NODE_EVENT if event.stream is None else event.stream
        observed = "null" if event.observed_at is None else f'"{utc(event.observed_at)}"'
        install = "null" if event.install_id is None else f'"{event.install_id}"'
        rest = (
            f',"{names["install_id"]}":{install},"{names["observed_at"]}":{observed},'
            f'"{names["received_at"]}":"{utc(event.received_at)}","data":{event.data}}}'
        )
        return self._said(self._kinds[stream], subscription, position, prev, rest)

    def gap(
        self,
        subscription: str,
        *,
        position: str,
        prev: str | None,
        missing: int | None,
        reason: str,
        event: LogEvent | None = None,
    ) -> str | None:
        if not self._extensions:
            return None
        before = "null" if prev is None else f'"{prev}"'
        counted = "" if missing is None else f',"count":{missing}'
        about = ""
        if event is not None and event.install_id is not None:
            about = f',"{self._names["install_id"]}":"{event.install_id}","data":{event.data}'
        rest = f',"from":{before},"to":"{position}"{counted},"reason":"{reason}"{about}}}'
        return self._said("event_gap", subscription, position, prev, rest)

    def live(self, subscription: str, *, position: str, prev: str | None) -> str | None:
        return self._said("event_live", subscription, position, prev, "}") if self._extensions else None

    def stale(
        self, subscription: str, value: Value, *, position: str, prev: str | None, reason: StaleReason
    ) -> str | None:
        if not self._extensions:
            return self.value(subscription, value, position=position, prev=prev, fields=None)
        last = f'"{self._names["last_observed_at"]}":"{utc(value.observed_at)}"'
        rest = f',"uid":"{value.uid}",{last},"reason":"{reason.value}"}}'
        return self._said("event_stale", subscription, position, prev, rest)

    def ended(self, subscription: str, *, position: str | None, reason: EndReason, message: str) -> str | None:
        if self._extensions:
            members = {"kind": "event_subscription_ended", self._names["subscription_id"]: subscription}
            return self._framed(
                "event_subscription_ended",
                position,
                compact.encode({**members, "reason": reason.value, "position": position, "message": message}),
            )
        details = {"reason": reason.value, "position": position}
        return self._framed(
            "error",
            position,
            compact.encode(
                {"kind": "error", "code": "conflict", "message": message, "details": details, "id": subscription}
            ),
        )


WITH_EXTENSIONS = TextDialect()
AS_PUBLISHED = TextDialect(extensions=False)
"""One of each for all sockets: what is the same for everybody is then written once."""
