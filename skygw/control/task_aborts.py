"""Tells nodes which of their tasks a lease has ended: when it is granted, and again to a node that comes."""

import logging
from collections.abc import Collection

import trio

from skygw.control.lease import Lease, WhileTask
from skygw.control.running_tasks import RunningTask, RunningTasks
from skygw.errors import LinkLost, RoutingUnavailable
from skygw.ids import TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Ending
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import EventTaskChanged, TaskDirective

log = logging.getLogger("skygw.control")

RETRY_S = 1.0
BY_LEASE = "lease"
"""The contract's word for why a task ended."""


class TaskAborts:
    """Its `run` looks up and tells. A node that is told twice has nothing to do the second time."""

    def __init__(self, *, tasks: RunningTasks, registry: ConnectionRegistry) -> None:
        self._tasks = tasks
        self._registry = registry
        self._look_at: set[TelescopeUid] = set()
        self._more = trio.Event()

    def lease_granted(self, lease: Lease) -> None:
        """Never waits."""
        if lease.while_task is not WhileTask.INTERRUPT:
            return
        if lease.resource.telescope_uid is not None:
            self._look([TelescopeUid(lease.resource.telescope_uid)])
            return
        for session in self._registry:  # whatever shares it
            if session.binding.observatory_uid == lease.resource.observatory_uid:
                self._look(session.binding.telescopes)

    def _look(self, telescopes: Collection[TelescopeUid]) -> None:
        if telescopes:
            self._look_at.update(telescopes)
            self._more.set()

    # What sessions tell (never waits).

    def session_began(self, session: NodeSession) -> None:
        self._look(session.binding.telescopes)

    def session_ended(self, session: NodeSession, ending: Ending) -> None:
        """It is told when it comes again."""

    async def run(self) -> None:
        """Until cancelled. Waits out a database that is away."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            wanted, self._look_at = self._look_at, set()
            try:
                tasks = await self._tasks.to_abort(wanted)
            except RoutingUnavailable as error:
                await trio.sleep(error.retry_after_s or RETRY_S)
                self._look(wanted)
                continue
            for task in tasks:
                self._tell(task)

    def _tell(self, task: RunningTask) -> None:
        session = self._registry.controlling(task.telescope_uid)
        if session is None:
            return  # it is told when it comes
        frame = EventTaskChanged(
            task_uid=task.uid,
            telescope_uid=task.telescope_uid,
            directive=TaskDirective.ABORT,
            reason=BY_LEASE,
            t_ms=session.t_ms(),
        )
        try:
            session.put(Lane.SAFETY, frame)
        except LinkLost:
            log.debug("not told to a session that is ending: to abort the task %s", task.uid)
