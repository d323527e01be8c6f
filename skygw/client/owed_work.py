"""What the node owes the hub over HTTP, as one part of the client: opened with it, and run beside its link."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from skygw.client.asset_operations import AssetOperations
from skygw.client.config import NodeConfig
from skygw.client.deliveries import AT_ONCE, Deliveries, Directed
from skygw.client.direct import Operations
from skygw.client.disk_work import DiskWork
from skygw.client.gate import Gate
from skygw.client.hub_http import HubHttp
from skygw.client.node_assets import NodeAssets
from skygw.client.node_tasks import NodeTasks
from skygw.client.round_trip import RoundTrip
from skygw.client.spare_disk import SpareDisk
from skygw.client.upload_pace import UploadPace
from skygw.client.uploads import Uploads
from skygw.client.work import Work

Dialled = Callable[[], tuple[str, int] | None]


class OwedWork:
    """Made by `opened`."""

    def __init__(
        self, work: Work, hub: HubHttp, config: NodeConfig, *, directed: Directed, chance: Callable[[], float]
    ) -> None:
        self.work = work
        self.hub = hub
        self.round_trip = RoundTrip()
        self.pace = UploadPace(self.round_trip, target_s=config.upload_delay_s, most_per_s=config.upload_bytes_per_s)
        self.tasks = NodeTasks(work, hub)
        self.assets = NodeAssets(work)
        self._gate = Gate(AT_ONCE)
        self._deliveries = Deliveries(work, hub, self._gate, directed=directed, chance=chance)
        self._uploads = Uploads(work, hub, self._gate, self.pace, chance=chance)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        config: NodeConfig,
        operations: Operations,
        *,
        spare: SpareDisk,
        disk: DiskWork,
        directed: Directed,
        chance: Callable[[], float],
        dialled: Dialled | None,
    ) -> AsyncIterator["OwedWork"]:
        """Raises `sqlite3.Error`, `OSError` when the disk has nothing to offer at the start."""
        work = await Work.open(config.state_dir, spare=spare, disk=disk)
        try:
            hub = HubHttp(config.url, config.token, ssl_context=config.ssl_context, dialled=dialled and dialled())
            async with hub.opened():
                AssetOperations(work).offer(operations)
                yield cls(work, hub, config, directed=directed, chance=chance)
        finally:
            await work.close()

    def linked(self) -> None:
        """There is a socket again: whatever waited for the hub is tried now."""
        self._gate.open()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliveries.run)
            nursery.start_soon(self._uploads.run)
