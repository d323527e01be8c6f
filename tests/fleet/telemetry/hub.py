"""A gateway that is killed, told to end and started again at the same addresses, and a PostgreSQL that is killed."""

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import trio

from skygw.database.embedded_files import ClusterFiles, noted_pid
from tests.fakes.gateway_process import GatewayProcess, gateway_process

SETTINGS = {"heartbeat_s": 2.0, "dead_after_s": 6.0, "max_connections_per_address": 4_096}
"""A link that is gone without a word is missed in seconds."""


class Hub:
    """`run` keeps a gateway running; `again` counts its starts."""

    def __init__(self, data_dir: Path) -> None:
        self.complaints: list[str] = []
        """What any of the gateways logged at ERROR."""
        self.again = 0
        """The run that serves now, or serves next."""
        self._data_dir = data_dir
        self._gateway: GatewayProcess | None = None
        self._up = trio.Event()
        self._end = trio.Event()
        self._ports: tuple[int, int] = (0, 0)

    @property
    def gateway(self) -> GatewayProcess:
        assert self._gateway is not None
        return self._gateway

    @property
    def node_port(self) -> int:
        return self._ports[0]

    @property
    def internal_port(self) -> int:
        return self._ports[1]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        while True:
            node_port, internal_port = self._ports
            async with gateway_process(
                self._data_dir, node_port=node_port, internal_port=internal_port, **SETTINGS
            ) as gateway:
                self._gateway = gateway
                self._ports = _port(gateway.node_url), _port(gateway.internal_url)
                self._end = trio.Event()
                self._up.set()
                if self.again == 0:
                    task_status.started()
                try:
                    await self._end.wait()
                finally:
                    self.again += 1
            self.complaints += gateway.complaints()

    async def restart(self, how: signal.Signals) -> None:
        """Returns when the next run is ready."""
        self._up = trio.Event()
        os.kill(self.gateway.pid, how)
        self._end.set()
        await self._up.wait()

    def kill_database(self) -> None:
        """Its supervisor starts it again."""
        pid = noted_pid(ClusterFiles(self._data_dir.resolve() / "postgres"))
        if pid is not None:  # else it has not come back from the last time
            os.kill(pid, signal.SIGKILL)


def _port(url: str) -> int:
    return urlsplit(url).port or 0
