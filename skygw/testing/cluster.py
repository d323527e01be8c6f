"""A PostgreSQL for a whole test session, in a thread of its own, so that it outlives each test's event loop."""

import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from skygw.database.embedded import EmbeddedCluster, embedded_postgres
from skygw.database.migrate import prepare_development

START_TIMEOUT_S = 60.0


class ClusterThread:
    """`with ClusterThread(folder) as cluster:`; leaving stops the server. Raises `StartupError`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._thread = threading.Thread(target=self._run, name="skygw test database", daemon=True)
        self._started: queue.Queue[tuple[EmbeddedCluster, trio.lowlevel.TrioToken] | BaseException] = queue.Queue()
        self._enough = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.gateway_url = ""
        self.owner_url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        started = self._started.get(timeout=START_TIMEOUT_S)
        if isinstance(started, BaseException):
            self._thread.join()
            raise started
        cluster, self._token = started
        self.gateway_url, self.owner_url = cluster.gateway_url, cluster.owner_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._token.run_sync_soon(self._enough.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._started.put(error)

    async def _serve(self) -> None:
        async with embedded_postgres(self._data_dir) as cluster:
            await prepare_development(cluster.owner_url)
            self._started.put((cluster, trio.lowlevel.current_trio_token()))
            await self._enough.wait()
