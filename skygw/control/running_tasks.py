"""Tasks that run at telescopes, by the platform's records: what a lease waits for, and what is in a command's way."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from skygw.control.order import CommandOrder
from skygw.errors import TaskActive
from skygw.ids import DeviceUid, InstallId, TaskUid, TelescopeUid

ASK_AGAIN_S = 10.0
"""Tasks end after minutes or hours, and nobody here knows when."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task in the state `active`, and the telescope whose instrument it is for."""

    uid: TaskUid
    telescope_uid: TelescopeUid


class RunningTasks(Protocol):
    """Which tasks run. Raises `RoutingUnavailable` when they cannot be asked."""

    async def running(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None, moves_enclosure: bool
    ) -> RunningTask | None:
        """One that runs at this telescope, at the telescope of this device, or at any telescope under this device if
        they share it. With `moves_enclosure` also at those that share an enclosure with the telescope.
        """
        ...

    async def to_abort(self, telescopes: Collection[TelescopeUid]) -> Sequence[RunningTask]:
        """Those that run at these telescopes against the will of who holds a lease: on the telescope, or on what it
        shares, with `whileTask: interrupt`. What the hub says of them is `abort`.
        """
        ...


def task_active(task: RunningTask) -> TaskActive:
    """What is said to whoever is in its way."""
    return TaskActive(
        f"The task {task.uid} runs at the telescope {task.telescope_uid}; only a stop gets through until it has ended.",
        retry_after_s=ASK_AGAIN_S,
        details={"taskUid": str(task.uid), "telescopeUid": str(task.telescope_uid)},
    )


class TaskGuard:
    """Nobody moves a telescope under a task that observes with it, whatever lease they hold."""

    def __init__(self, tasks: RunningTasks) -> None:
        self._tasks = tasks

    async def admit(self, order: CommandOrder, install_id: InstallId) -> None:  # noqa: ARG002 - whoever runs it
        """Raises `TaskActive`, `RoutingUnavailable`."""
        task = await self._tasks.running(
            telescope_uid=order.telescope_uid, device_uid=order.device_uid, moves_enclosure=order.moves_enclosure
        )
        if task is not None:
            raise task_active(task)
