"""`RunningTasks` in memory, beside the leases that wait for them."""

from collections.abc import Collection, Sequence

from skygw.control.running_tasks import RunningTask
from skygw.ids import DeviceUid, TelescopeUid
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.ports import Switch


class MemoryTasks:
    """What runs is put into and taken from `leases.tasks`."""

    def __init__(self, leases: MemoryLeases, switch: Switch) -> None:
        self._leases = leases
        self._switch = switch

    async def running(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None, moves_enclosure: bool
    ) -> RunningTask | None:
        await self._switch.asked()
        named = device_uid or telescope_uid
        found = self._leases.tasks_at(named)
        if (
            device_uid is None
            and telescope_uid is not None
            and moves_enclosure
            and telescope_uid in self._leases.places
        ):
            for enclosure in self._leases.places[telescope_uid].neighbours:
                found += self._leases.tasks_at(enclosure)
        return found[0] if found else None

    async def to_abort(self, telescopes: Collection[TelescopeUid]) -> Sequence[RunningTask]:
        await self._switch.asked()
        return [
            task for task in self._leases.tasks if task.telescope_uid in telescopes and self._leases.wants_aborted(task)
        ]
