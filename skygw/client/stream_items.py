"""What a subscriber is told, one item after the other, and how it is read from what comes over a stream socket."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias
from uuid import UUID

_DATA = ',"data":'
"""Of a message `data` comes last, so that it can be carried without being looked into (docs/streams.md)."""


class Unreadable(Exception):
    """The gateway said something that is no message of a stream socket."""


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The newest value of a resource, or one event of a log.

    `observed_at` is by the clock of the node, for people; `received_at` by the gateway's. `heard_at` is when the
    gateway heard of it, on trio's clock and never later than it was; `None` where the gateway does not tell its time.
    """

    stream: str
    text: str
    """The payload as its source wrote it."""
    install_id: UUID | None
    observed_at: datetime | None
    received_at: datetime
    heard_at: float | None
    stale: str | None
    """Why the value is not the present, see `StaleReason`."""
    max_silence_s: float | None
    position: str
    message: str
    """All of it as it came."""

    @cached_property
    def data(self) -> dict[str, Any]:
        """The payload, parsed when it is first asked for. Raises `Unreadable`."""
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"a payload that is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Unreadable("a payload that is no object")
        return found

    @cached_property
    def uid(self) -> UUID | None:
        """Of the resource, where the payload names one."""
        try:
            return UUID(self.data["uid"])
        except (Unreadable, KeyError, ValueError, TypeError, AttributeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Everything there was has been said: what is held now is the present, until `Away` or a `Stale` says otherwise."""

    position: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Between two positions something was passed over: `count` is how many, if that is known.

    `reason`: `conflated` (newer values came before the older could be told), `resumed` (the latest since the position
    resumed from), `gateway_restarted` (what that gateway still knows, which may be less than what was told),
    `no_longer_kept`, `declared_by_node`, `never_taken`, `unreadable` (not understood here), or `lost`: messages are
    missing, noticed here by `prev`. What was lost is asked for again, and of a log comes whole.
    """

    from_: str | None
    to: str | None
    count: int | None
    reason: str
    install_id: UUID | None = None
    position: str | None
    message: str
    """Empty where it was noticed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """What is known of this resource is no longer the present; `reason`: see `StaleReason`."""

    uid: UUID
    reason: str
    last_observed_at: datetime | None
    position: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """Nothing comes for now. It will be resumed from where it was; `Live` says when that is done.

    `again_in_s` from when this was noticed; `needs_attention`: waiting alone will probably not help. `status` is that
    of an HTTP refusal, `code` that of a close frame.
    """

    reason: str
    again_in_s: float
    needs_attention: bool = False
    status: int | None = None
    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last item: the gateway does not serve this subscription, and asking again would not help.

    `reason` is an `EndReason` or that of a refusal (`invalid`, `busy`, …), `text` a sentence, `position` where to
    resume.
    """

    reason: str
    text: str
    position: str | None
    message: str


Item: TypeAlias = Changed | Live | Gap | Stale | Away | Ended


class Said:
    """One message of the socket: its members but for `data`, which is text."""

    __slots__ = ("data", "members", "message")

    def __init__(self, message: str) -> None:
        """Raises `Unreadable`."""
        head, has_data, data = message.partition(_DATA)
        try:
            members = json.loads(head + "}" if has_data else message)
        except (ValueError, RecursionError):
            raise Unreadable(f"a message that is no JSON object: {message[:80]!r}") from None
        if not isinstance(members, dict):
            raise Unreadable(f"a message that is no JSON object: {message[:80]!r}")
        self.message = message
        self.members: dict[str, Any] = members
        self.data = data[:-1]

    @property
    def kind(self) -> str:
        return self.text("kind")

    def text(self, name: str) -> str:
        """Raises `Unreadable` where it is missing."""
        found = self.members.get(name)
        if not isinstance(found, str):
            raise Unreadable(f"a message whose {name} is missing: {self.message[:80]!r}")
        return found

    def text_or_none(self, name: str) -> str | None:
        return None if self.members.get(name) is None else self.text(name)

    def number_or_none(self, name: str) -> float | None:
        found = self.members.get(name)
        if found is None:
            return None
        if not isinstance(found, int | float):
            raise Unreadable(f"a message whose {name} is no number: {self.message[:80]!r}")
        return found

    def time(self, name: str) -> datetime:
        """Raises `Unreadable` for what is no time, or says no zone."""
        try:
            found = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise Unreadable(f"a message whose {name} is no time: {self.message[:80]!r}") from None
        if found.tzinfo is None:
            raise Unreadable(f"a message whose {name} names no time zone: {self.message[:80]!r}")
        return found

    def time_or_none(self, name: str) -> datetime | None:
        return None if self.members.get(name) is None else self.time(name)

    def uid_or_none(self, name: str) -> UUID | None:
        text = self.text_or_none(name)
        try:
            return None if text is None else UUID(text)
        except ValueError:
            raise Unreadable(f"a message whose {name} is no uid: {self.message[:80]!r}") from None

    def changed(self, stream: str, *, heard_at: float | None) -> Changed:
        """Raises `Unreadable`."""
        if not self.data:
            raise Unreadable(f"an event without data: {self.message[:80]!r}")
        return Changed(
            stream=stream,
            text=self.data,
            install_id=self.uid_or_none("install_id"),
            observed_at=self.time_or_none("observed_at"),
            received_at=self.time("received_at"),
            heard_at=heard_at,
            stale=self.text_or_none("stale"),
            max_silence_s=self.number_or_none("max_silence_s"),
            position=self.text("position"),
            message=self.message,
        )

    def gap(self) -> Gap:
        """Raises `Unreadable`."""
        count = self.number_or_none("count")
        return Gap(
            from_=self.text_or_none("from"),
            to=self.text("to"),
            count=None if count is None else int(count),
            reason=self.text("reason"),
            install_id=self.uid_or_none("install_id"),
            position=self.text("position"),
            message=self.message,
        )

    def stale(self) -> Stale:
        """Raises `Unreadable`."""
        uid = self.uid_or_none("uid")
        if uid is None:
            raise Unreadable(f"a stale resource without a uid: {self.message[:80]!r}")
        return Stale(
            uid=uid,
            reason=self.text("reason"),
            last_observed_at=self.time_or_none("last_observed_at"),
            position=self.text("position"),
            message=self.message,
        )
