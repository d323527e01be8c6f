"""Learns of new revisions of the hardware graph: from the database's notifications, and by looking where none come."""

import logging
from collections.abc import Callable, Collection
from typing import Protocol
from uuid import UUID

import trio

from skygw.database.hardware import PgHardware
from skygw.database.listening import Listening
from skygw.database.pool import Database
from skygw.errors import RoutingUnavailable

CHANNEL = "skygw_graph"

AT_MOST_BUSY = 0.2
"""The part of its time for which one gateway looks: however many observatories there are, and however large, the
database is left alone four times as long as it took."""

log = logging.getLogger(__name__)


class Revisions(Protocol):
    """Who keeps them. None of these waits."""

    def took(self, observatory_uid: UUID, revision: int) -> None:
        """This is the revision now, or was a moment ago."""
        ...

    def began(self) -> None:
        """Everything that was told is the present, and what changes from now on will be told."""
        ...

    def lost(self) -> None:
        """What changes from now on will not be told."""
        ...


class GraphFeed:
    """One per process."""

    def __init__(
        self,
        database: Database,
        hardware: PgHardware,
        *,
        tell: Revisions,
        connected: Callable[[], Collection[UUID]],
        look_every_s: float,
    ) -> None:
        """`connected` are the observatories somebody here is of: where the tables have no triggers, these are looked at,
        each once in `look_every_s` if that leaves the database alone for long enough.
        """
        self._hardware = hardware
        self._tell = tell
        self._connected = connected
        self._look_every_s = look_every_s
        self._listening = Listening(database, CHANNEL, heard=self._heard, began=self._read_all, lost=tell.lost)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listening.run)
            nursery.start_soon(self._look)

    def _heard(self, payload: str) -> None:
        uid, _, revision = payload.partition(" ")
        try:
            self._tell.took(UUID(uid), int(revision))
        except ValueError:  # somebody else's: any role may notify
            log.warning("what was notified is no revision of a graph", extra={"size": len(payload)})

    async def _read_all(self) -> None:
        for observatory_uid, revision in (await self._hardware.revisions()).items():
            self._tell.took(observatory_uid, revision)
        self._tell.began()

    async def _look(self) -> None:
        was_watched = True
        while True:
            began_at = trio.current_time()
            try:
                is_watched = await self._hardware.is_watched()
                if was_watched and not is_watched:
                    log.warning(
                        "the platform's tables lack triggers of the graph (`skygw doctor`): looking for changes"
                    )
                was_watched = is_watched
                if not is_watched:
                    await self._look_around()
            except RoutingUnavailable as error:
                log.debug("cannot look for changes of the graph: %s", error)  # said where the database was asked
            await trio.sleep_until(began_at + self._look_every_s)

    async def _look_around(self) -> None:
        for observatory_uid in set(self._connected()):
            began_at = trio.current_time()
            await self._hardware.look(observatory_uid)
            await trio.sleep((trio.current_time() - began_at) * (1 / AT_MOST_BUSY - 1))
