"""Tasks as a node's doors ask for them: who may claim now, and of whom something was heard."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol
from uuid import UUID

import trio

from skygw.errors import GatewayError, RoutingUnavailable
from skygw.ids import InstallId, TelescopeUid
from skygw.observing.tasks import Claimed, Completion, Observer, Progress, Report, Results, Task, TaskQuery, TaskStore

EXTEND_EVERY_S = 60.0
"""How often it is written down of whom something was heard; a claim lasts ten times as long."""


class Interlocks(Protocol):
    """What sites say of their interlocks now."""

    def over(self, telescope_uid: TelescopeUid, observatory_uid: UUID) -> GatewayError | None:
        """What refuses to begin anything there, if something does. Never waits."""
        ...


class TaskService:
    """Everything raises what the store raises. Its `run` keeps the claims of those who are heard of."""

    def __init__(
        self, *, store: TaskStore, interlocks: Interlocks, connected: Callable[[], Iterable[InstallId]]
    ) -> None:
        """`connected` are the installations that hold a socket now."""
        self._store = store
        self._interlocks = interlocks
        self._connected = connected
        self._heard: set[InstallId] = set()

    async def page(self, observer: Observer, query: TaskQuery) -> tuple[Sequence[Task], int]:
        return await self._store.page(observer, query)

    async def get(self, observer: Observer, id_or_uid: str) -> Task:
        return await self._store.get(observer, id_or_uid)

    async def claim(self, observer: Observer, report: Report, *, at_most: int) -> Claimed:
        """Raises `Forbidden` for an installation without a telescope, and `InterlockActive`."""
        refusal = self._interlocks.over(observer.telescope_uid, observer.observatory_uid)
        claimed = await self._store.claim(observer, report, at_most=at_most, refusal=refusal)
        self._heard.add(observer.install_id)
        return claimed

    async def release(self, observer: Observer, id_or_uid: str) -> Task:
        self._heard.add(observer.install_id)
        return await self._store.release(observer, id_or_uid)

    async def progress(self, observer: Observer, id_or_uid: str, report: Progress) -> str:
        self._heard.add(observer.install_id)
        return await self._store.progress(observer, id_or_uid, report)

    async def results(self, observer: Observer, id_or_uid: str, report: Results) -> str:
        self._heard.add(observer.install_id)
        return await self._store.results(observer, id_or_uid, report)

    async def complete(self, observer: Observer, id_or_uid: str, report: Completion) -> str:
        self._heard.add(observer.install_id)
        return await self._store.complete(observer, id_or_uid, report)

    async def run(self) -> None:
        """Until cancelled. What could not be written is written the next time."""
        while True:
            await trio.sleep(EXTEND_EVERY_S)
            heard, self._heard = self._heard, set()
            everybody: Collection[InstallId] = heard.union(self._connected())
            if not everybody:
                continue
            try:
                await self._store.extend(everybody)
            except RoutingUnavailable:
                self._heard |= heard
