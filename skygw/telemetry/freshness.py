"""Makes silence audible: a value that is not said again in time is no longer the present, and says so."""

import heapq
from collections.abc import Callable
from itertools import count

import trio

from skygw.ids import Epoch, InstallId
from skygw.protocol.streams import StaleReason
from skygw.telemetry.retained import PUBLISHED_BY_NODES, RetainedValues
from skygw.telemetry.sessions import Session
from skygw.telemetry.value import Value

LOOK_EVERY_S = 0.25
"""Whatever has become due meanwhile is looked at together."""

SLACK_S = 0.5
"""A limit shortened by less is looked at when it was due before: with the above, within a second of the limit."""

AT_ONCE = 100
"""Values looked at before others have their turn: a fleet that falls silent is thousands."""

TURNS_TO_READ = 3
"""In which bytes that lie in the kernel reach the session."""


async def next_look(every_s: float) -> None:
    """Sleeps. If the process itself stood still, what has come meanwhile is read before anybody is called silent."""
    due = trio.current_time() + every_s
    await trio.sleep_until(due)
    if trio.current_time() > due + every_s:
        for _ in range(TURNS_TO_READ):
            await trio.lowlevel.checkpoint()


class Freshness:
    """Marks values of nodes stale: beyond their limit, or without a limit when their node leaves.

    One with a limit keeps it over a lost link, so that a node that comes back in time is no alarm. A value costs one
    comparison each time it is said, and a place in a heap of look-at times: what was said in time is given a later one.
    """

    def __init__(self, retained: RetainedValues, *, is_here: Callable[[InstallId], bool]) -> None:
        """`is_here` says whether an installation has a session now."""
        self._retained = retained
        self._is_here = is_here
        self._heap: list[tuple[float, int, Value]] = []
        self._tie = count()
        self._watched = 0

    @property
    def waiting(self) -> int:
        """How many looks are due some time: at most about two for each value with a limit."""
        return len(self._heap)

    def changed(self, value: Value) -> None:
        limit = value.max_silence_s
        if limit is None or value.stale is not None:
            return
        by = value.heard_at + limit
        due = value.looked_at_by
        if (due is None or by < due - SLACK_S) and value.stream in PUBLISHED_BY_NODES:
            self._look_at(value, by)

    def unchanged(self, value: Value) -> None:
        """Said again, in time: what may be new is the limit."""
        self.changed(value)

    def session_began(self, session: Session) -> None:
        """Nothing without a limit is fresh until it is said by this session."""
        self._leave_behind(session.binding.install_id, Epoch(session.epoch - 1))

    def session_ended(self, session: Session) -> None:
        """What a newer session has said already stays as it is."""
        self._leave_behind(session.binding.install_id, session.epoch)

    def _leave_behind(self, install_id: InstallId, epoch: Epoch) -> None:
        for value in self._retained.of(install_id):
            if value.max_silence_s is None and value.order[0] <= epoch and value.stream in PUBLISHED_BY_NODES:
                self._retained.mark_stale(value, StaleReason.NODE_OFFLINE)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await next_look(LOOK_EVERY_S)
            now = trio.current_time()
            looked = 0
            while self._heap and self._heap[0][0] <= now:
                self._look(*heapq.heappop(self._heap), now=now)
                looked += 1
                if looked % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _look(self, at: float, _: int, value: Value, *, now: float) -> None:
        if value.looked_at_by != at:
            return  # it was to be looked at earlier, and was
        value.looked_at_by = None
        self._watched -= 1
        if value.max_silence_s is None or self._retained.find(value.stream, value.uid) is not value:
            return  # it has no limit any more, or was forgotten, or is another installation's
        by = value.heard_at + value.max_silence_s
        if by > now:
            self._look_at(value, by)
            return
        is_here = self._is_here(value.install_id)
        self._retained.mark_stale(value, StaleReason.SILENT if is_here else StaleReason.NODE_OFFLINE)

    def _look_at(self, value: Value, by: float) -> None:
        if value.looked_at_by is None:
            self._watched += 1
        value.looked_at_by = by
        heapq.heappush(self._heap, (by, next(self._tie), value))
        if len(self._heap) > 2 * self._watched + AT_ONCE:  # limits were shortened over and over
            self._heap = [entry for entry in self._heap if entry[2].looked_at_by == entry[0]]
            heapq.heapify(self._heap)
