"""Tells nodes that there are tasks to claim, and which of theirs the hub does not want any more."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from skygw.errors import LinkLost, RoutingUnavailable
from skygw.ids import SessionUid, TaskUid, TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Ending
from skygw.nodes.session import NodeSession
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import EventTaskChanged, EventTasksAvailable, TaskDirective

log = logging.getLogger("skygw.control")

LOOK_EVERY_S = 5.0
"""Tasks become ones to claim by the clock, too, of which nobody tells; and where the platform's table may not have our
triggers, nobody tells at all.
"""
RETRY_S = 1.0
MAX_TOLD = 100
"""Tasks named in one frame: 4 KiB. A node that has claimed these asks for more by itself."""


@dataclass(frozen=True, slots=True)
class Unwanted:
    """A task that a node has claimed, and what the hub wants of it instead."""

    uid: TaskUid
    telescope_uid: TelescopeUid
    directive: TaskDirective
    reason: str


class TaskBoard(Protocol):
    """What the platform's records say of tasks now. Raises `RoutingUnavailable` when they cannot be asked."""

    async def available(self, telescopes: Collection[TelescopeUid]) -> Mapping[TelescopeUid, Sequence[TaskUid]]:
        """Tasks to claim, `MAX_TOLD` of each telescope at most."""
        ...

    async def unwanted(self, telescopes: Collection[TelescopeUid]) -> Sequence[Unwanted]:
        """Of what is claimed at these: what was canceled, and what runs beyond its window."""
        ...


@dataclass(slots=True)
class _Told:
    """What one session was told, as far as it still is so."""

    available: set[TaskUid] = field(default_factory=set)
    unwanted: set[Unwanted] = field(default_factory=set)


class TaskNews:
    """Its `run` looks up and tells, each session once of each thing. Told of every session."""

    def __init__(self, *, board: TaskBoard, registry: ConnectionRegistry) -> None:
        self._board = board
        self._registry = registry
        self._told: dict[SessionUid, _Told] = {}
        self._look_at: set[TelescopeUid] = set()
        self._more = trio.Event()

    def changed(self, telescopes: Iterable[TelescopeUid]) -> None:
        """Something is different with tasks there. Never waits."""
        self._look_at.update(uid for uid in telescopes if self._registry.controlling(uid) is not None)
        if self._look_at:
            self._more.set()

    def everything_changed(self) -> None:
        """Nobody knows what is different. Never waits."""
        self._look_at.update(uid for session in self._registry for uid in session.binding.telescopes)
        if self._look_at:
            self._more.set()

    # What sessions tell (never waits).

    def session_began(self, session: NodeSession) -> None:
        self._told[session.uid] = _Told()
        self.changed(session.binding.telescopes)

    def session_ended(self, session: NodeSession, ending: Ending) -> None:  # noqa: ARG002 - a witness's signature
        self._told.pop(session.uid, None)

    async def run(self) -> None:
        """Until cancelled. Waits out a database that is away."""
        while True:
            with trio.move_on_after(LOOK_EVERY_S) as waited:
                await self._more.wait()
            if waited.cancelled_caught:
                self.everything_changed()
            self._more = trio.Event()
            wanted, self._look_at = self._look_at, set()
            if not wanted:
                continue
            try:
                available = await self._board.available(wanted)
                unwanted = await self._board.unwanted(wanted)
            except RoutingUnavailable as error:
                await trio.sleep(error.retry_after_s or RETRY_S)
                self.changed(wanted)
                continue
            for telescope_uid in wanted:
                self._tell(
                    telescope_uid,
                    available.get(telescope_uid, ()),
                    {word for word in unwanted if word.telescope_uid == telescope_uid},
                )

    def _tell(self, telescope_uid: TelescopeUid, available: Sequence[TaskUid], unwanted: set[Unwanted]) -> None:
        session = self._registry.controlling(telescope_uid)
        told = None if session is None else self._told.get(session.uid)
        if session is None or told is None:
            return  # it is told when it comes
        new = [uid for uid in available if uid not in told.available]
        if new:
            self._put(
                session,
                Lane.CONTROL,
                EventTasksAvailable(telescope_uid=telescope_uid, task_uids=tuple(new), t_ms=session.t_ms()),
            )
        for word in unwanted - told.unwanted:
            frame = EventTaskChanged(
                task_uid=word.uid,
                telescope_uid=telescope_uid,
                directive=word.directive,
                reason=word.reason,
                t_ms=session.t_ms(),
            )
            self._put(session, Lane.SAFETY, frame)
        told.available = set(available)
        told.unwanted = unwanted

    @staticmethod
    def _put(session: NodeSession, lane: Lane, frame: Frame) -> None:
        try:
            session.put(lane, frame)
        except LinkLost:
            log.debug("not told to a session that is ending: %s", frame.kind)
