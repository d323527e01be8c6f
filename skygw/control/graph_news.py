"""Which revision of the hardware graph is current, from memory, and that connected nodes are told of a newer one."""

import logging
from collections.abc import Callable, Collection
from uuid import UUID

import trio

from skygw.errors import LinkLost
from skygw.ids import InstallId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.loopback import LOOPBACK_ID
from skygw.nodes.outbox import Lane
from skygw.protocol.gateway_frames import EventGraphChanged

log = logging.getLogger("skygw.control")

SPACING_S = 0.2
"""Between two words about the graphs: of an import that changes one in many steps, nodes are told a few times."""


class GraphNews:
    """`nodes.ports.GraphRevisions` and `control.configuration_guard.GraphRevisions`, kept current by `database`'s feed.

    While nothing is heard of changes no revision is known: an old one would refuse the caller who has the newer.
    """

    def __init__(self, registry: ConnectionRegistry, *, count_loss: Callable[[], None] = lambda: None) -> None:
        self._registry = registry
        self._count_loss = count_loss
        self._revisions: dict[UUID, int] = {}
        self._hears = False
        self._to_tell: set[UUID] = set()
        self._more = trio.Event()

    @property
    def hears(self) -> bool:
        """Whether a change would be noticed now."""
        return self._hears

    def revision_of(self, observatory_uid: UUID) -> int | None:
        return self._revisions.get(observatory_uid) if self._hears else None

    async def current(self, install_id: InstallId) -> int | None:
        """Of the observatory of an installation that is connected."""
        session = self._registry.current(install_id)
        return None if session is None else self.revision_of(session.binding.observatory_uid)

    def connected(self) -> Collection[UUID]:
        """The observatories of those who are."""
        ours = [session.binding for session in self._registry if session.binding.install_id != LOOPBACK_ID]
        return {binding.observatory_uid for binding in ours}

    # What the feed tells (never waits).

    def took(self, observatory_uid: UUID, revision: int) -> None:
        """An older one than is known was read before that was notified: a database that was restored from a backup ends
        every connection, and the feed begins anew.
        """
        if revision <= self._revisions.get(observatory_uid, 0):
            return
        self._revisions[observatory_uid] = revision
        self._to_tell.add(observatory_uid)
        self._more.set()

    def began(self) -> None:
        self._hears = True

    def lost(self) -> None:
        self._hears = False
        self._revisions.clear()
        self._count_loss()

    async def run(self) -> None:
        """Tells those who are connected, until cancelled. A node that is told what it knows has nothing to do."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            changed, self._to_tell = self._to_tell, set()
            for session in self._registry:
                observatory_uid = session.binding.observatory_uid
                if observatory_uid not in changed or observatory_uid not in self._revisions:
                    continue
                frame = EventGraphChanged(revision=self._revisions[observatory_uid], observatory_uid=observatory_uid)
                try:
                    session.put(Lane.CONTROL, frame)
                except LinkLost:
                    log.debug("not told to a session that is ending: a newer graph")
            await trio.sleep(SPACING_S)
