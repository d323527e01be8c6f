"""What a site said of itself and holds now: that somebody there has taken control, or that an interlock is active.

Only the present counts. A value that is stale or was never said decides nothing here: the node refuses by itself
(contract §0.3), and the gateway is never the stricter of the two.
"""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import trio

from skygw.control.order import CommandOrder
from skygw.errors import InterlockActive, LocalControl
from skygw.ids import InstallId, TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.protocol.interlocks import defies_interlock
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.audience import Want
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.value import Value

ASK_AGAIN_S = 10.0
"""Nobody here knows when it ends."""

MAX_REASONS = 20
MAX_REASON = 200
"""Of a node's own words in an answer: 20 × 200 characters."""


class SiteWord:
    """The present values of the sites that are connected."""

    def __init__(self, retained: RetainedValues, registry: ConnectionRegistry) -> None:
        self._retained = retained
        self._registry = registry

    def target(self, order: CommandOrder, install_id: InstallId) -> Resource | None:
        """What the order is for, by the records its installation was let in with; nothing while it is not here."""
        session = self._registry.current(install_id)
        uid = order.device_uid or order.telescope_uid
        return None if session is None or uid is None else session.binding.resources.get(uid)

    def runs_own_enclosure(self, install_id: InstallId) -> bool:
        """Whether it has an enclosure that it shares with no other telescope."""
        session = self._registry.current(install_id)
        return session is not None and any(
            resource.device_type == "enclosure" and resource.telescope_uid is not None
            for resource in session.binding.resources.values()
        )

    def find(self, stream: StreamName, uid: UUID | None) -> Value | None:
        """If it is the present."""
        value = None if uid is None else self._retained.find(stream, uid)
        return None if value is None or value.stale is not None else value

    def of_observatory(self, stream: StreamName, observatory_uid: UUID) -> Iterator[Value]:
        """Everything that is the present there."""
        want = Want(StreamFilter(observatory_uid=(observatory_uid,)))
        return (value for value in self._retained.matching(stream, want) if value.stale is None)


class LocalControlGuard:
    """Whoever is on site wins: nothing of the hub's but safing passes while a node says `local_control`."""

    def __init__(self, sites: SiteWord) -> None:
        self._sites = sites

    async def admit(self, order: CommandOrder, install_id: InstallId) -> None:
        """Raises `LocalControl`."""
        target = self._sites.target(order, install_id)
        if target is None:
            return
        for value in (
            self._sites.find(StreamName.TELESCOPE_SNAPSHOT, target.telescope_uid),
            self._sites.find(StreamName.DEVICE_SNAPSHOT, target.device_uid),
        ):
            if value is not None and said(value, "local_control", "localControl") is True:
                raise LocalControl(
                    f"Somebody on site has taken control of the {value.resource.kind.value} {value.uid}, its node said "
                    f"{_ago(value)}: only a stop gets through.",
                    retry_after_s=ASK_AGAIN_S,
                    details={"uid": str(value.uid)},
                )


class InterlockGuard:
    """While a shutdown interlock is active nothing is moved that it wants still (`protocol/interlocks.py`)."""

    def __init__(self, sites: SiteWord) -> None:
        self._sites = sites

    async def admit(self, order: CommandOrder, install_id: InstallId) -> None:
        """Raises `InterlockActive`."""
        if not defies_interlock(order.command_type):
            return
        target = self._sites.target(order, install_id)
        if target is None:
            return
        over_all = _is_shared_enclosure(target) or (
            order.moves_enclosure
            and target.kind is ResourceKind.TELESCOPE
            and not self._sites.runs_own_enclosure(install_id)
        )
        for value in self._sites.of_observatory(StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT, target.observatory_uid):
            if _reaches(value.resource, target, over_all=over_all) and said(value, "active") is True:
                raise _active(value)


class StandingInterlocks:
    """`observing.task_service.Interlocks`: what forbids to begin a task at a telescope."""

    def __init__(self, sites: SiteWord) -> None:
        self._sites = sites

    def over(self, telescope_uid: TelescopeUid, observatory_uid: UUID) -> InterlockActive | None:
        """One of the telescope itself, or of what it shares with others."""
        for value in self._sites.of_observatory(StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT, observatory_uid):
            about = value.resource
            concerns = (
                about.kind in (ResourceKind.OBSERVATORY, ResourceKind.CONSTRAINT) or _is_shared_enclosure(about)
                if about.telescope_uid is None
                else about.telescope_uid == telescope_uid
            )
            if concerns and said(value, "active") is True:
                return _active(value)
        return None


def said(value: Value, *names: str) -> Any:
    """A member of what a node published, by any of its spellings; nothing if it is not there."""
    data = json.loads(value.data)
    return next((data[name] for name in names if name in data), None)


def _reaches(about: Resource, target: Resource, *, over_all: bool) -> bool:
    """Whether an interlock about one resource concerns a command for another of the same observatory: one of a
    telescope concerns all that is the telescope's, and what moves the enclosure over it; one of the observatory or of
    a constraint that its telescopes share concerns everything.
    """
    if about.uid == target.uid or about.kind is ResourceKind.OBSERVATORY:
        return True
    if about.telescope_uid is None:
        return about.kind is ResourceKind.CONSTRAINT or (over_all and about.device_type == "enclosure")
    return over_all or about.telescope_uid == target.telescope_uid


def _is_shared_enclosure(target: Resource) -> bool:
    return target.device_type == "enclosure" and target.telescope_uid is None


def _active(value: Value) -> InterlockActive:
    given = said(value, "reasons")
    reasons = [reason[:MAX_REASON] for reason in given if isinstance(reason, str)] if isinstance(given, list) else []
    why = f" ({', '.join(reasons[:MAX_REASONS])})" if reasons else ""
    return InterlockActive(
        f"A shutdown interlock of the {value.resource.kind.value} {value.uid} is active, its node said {_ago(value)}"
        f"{why}: what parks, closes or stops gets through.",
        retry_after_s=ASK_AGAIN_S,
        details={"uid": str(value.uid), "reasons": reasons[:MAX_REASONS]},
    )


def _ago(value: Value) -> str:
    return f"{max(0.0, trio.current_time() - value.heard_at):.0f} s ago"
