"""Who is connected here now: one session per installation, the newest wins, and why the last one ended."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import trio

from skygw.ids import DeviceUid, InstallId, InstanceUid, TelescopeUid
from skygw.nodes.ports import Ending, Standing
from skygw.nodes.session import NodeSession
from skygw.protocol.close_codes import CloseCode

REMEMBERED_INSTALLATIONS = 10_000
"""Last closes and refusals kept: 10,000 × about 500 bytes, the oldest forgotten first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an installation was last turned away. `code` is the HTTP status or close code."""

    at: datetime
    code: int
    reason: str
    address: str


@dataclass(slots=True)
class Memory:
    """What is remembered of an installation between its sessions."""

    last_close: Ending | None = None
    last_refusal: Refusal | None = None
    standing: Standing | None = None


class ConnectionRegistry:
    """The sessions of this process. Everything here is synchronous but `connected` and `empty`."""

    def __init__(self) -> None:
        self._sessions: dict[InstallId, NodeSession] = {}
        self._memory: OrderedDict[InstallId, Memory] = OrderedDict()
        self._arrival = trio.Event()
        self._emptied = trio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[NodeSession]:
        return iter(list(self._sessions.values()))

    def current(self, install_id: InstallId) -> NodeSession | None:
        return self._sessions.get(install_id)

    async def connected(self, install_id: InstallId) -> NodeSession:
        """Waits until the installation holds a socket here that is not ending. The caller brings the deadline."""
        while (session := self._sessions.get(install_id)) is None or session.ending is not None:
            await self._arrival.wait()
        return session

    async def empty(self) -> None:
        """Waits until nobody is connected. The caller brings the deadline."""
        while self._sessions:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def controlling(self, target: TelescopeUid | DeviceUid) -> NodeSession | None:
        """The live session that controls a telescope or device; needs no database, so that safing does not."""
        for session in self._sessions.values():
            if session.ending is not None:
                continue
            if target in session.binding.devices or target in session.binding.telescopes:
                return session
        return None

    def rival(self, install_id: InstallId, instance_uid: InstanceUid) -> NodeSession | None:
        """Another machine's live session of the same installation."""
        session = self._sessions.get(install_id)
        if session is None or session.ending is not None or session.hello.instance_uid == instance_uid:
            return None
        return session

    def take_over(self, session: NodeSession) -> bool:
        """Makes `session` the current one and ends the one before, waiting for nobody.

        Returns `False` when a session of a higher epoch is here already: then this one is the old one.
        """
        install_id = session.binding.install_id
        before = self._sessions.get(install_id)
        if before is not None and before.epoch > session.epoch:
            return False
        self._sessions[install_id] = session
        if before is not None:
            before.end(CloseCode.SUPERSEDED, "a newer connection of this installation took over")
        self._arrival.set()
        self._arrival = trio.Event()
        return True

    def release(self, session: NodeSession, ending: Ending) -> None:
        """The goodbye of a session; that of a superseded one changes nothing but the memory of why it ended."""
        install_id = session.binding.install_id
        if self._sessions.get(install_id) is session:
            del self._sessions[install_id]
            if not self._sessions:
                self._emptied.set()
        memory = self._remembered(install_id)
        memory.last_close = ending
        if memory.standing is None or memory.standing.claim.epoch < session.epoch:
            memory.standing = session.standing

    def standing(self, install_id: InstallId) -> Standing | None:
        """Of the current session, or else of the last one."""
        session = self._sessions.get(install_id)
        return self.memory(install_id).standing if session is None else session.standing

    def refused(self, install_id: InstallId, refusal: Refusal) -> None:
        self._remembered(install_id).last_refusal = refusal

    def memory(self, install_id: InstallId) -> Memory:
        return self._memory.get(install_id) or Memory()

    def _remembered(self, install_id: InstallId) -> Memory:
        memory = self._memory.setdefault(install_id, Memory())
        self._memory.move_to_end(install_id)
        while len(self._memory) > REMEMBERED_INSTALLATIONS:
            self._memory.popitem(last=False)
        return memory
