"""The door of uploads in a process of its own, for tests that kill or weigh it.

`python -m tests.fakes.upload_gateway F`: bytes lie in `F/files`, and what is known of uploads in `F/rows`, written
before anybody is answered, as a database does.
"""

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import trio

from skygw.observing.byte_store import MIB
from skygw.observing.upload_store import Quota
from skygw.observing.uploads import Uploads
from skygw.routers.apps import node_app
from skygw.routers.gates import NodeGate
from skygw.routers.uploads import UploadRouter
from skygw.serving import Listener, ListenerConfig
from skygw.storage.local import LocalStore
from tests.fakes.memory_uploads import MemoryUploads
from tests.routers.upload_doors import RULES, Hub
from tests.serving.served import CountingMetrics

READY_WITHIN_S = 60.0
LARGE = replace(RULES, max_bytes=8_192 * MIB, quota=Quota(bytes=65_536 * MIB, uploads=1_000))


class KeptUploads(MemoryUploads):
    """Outlives its process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            self.rows, self.reserved = pickle.loads(path.read_bytes())  # noqa: S301 - of the test's own

    def changed(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_bytes(pickle.dumps((self.rows, self.reserved)))
        beside.replace(self._path)


async def serve(folder: Path) -> None:
    hub = Hub()
    uploads = Uploads(
        store=KeptUploads(folder / "rows"),
        files=LocalStore(folder / "files"),
        rules=LARGE,
        now=lambda: datetime.now(UTC),
        completed=lambda _: None,
    )
    gate = NodeGate(verifier=hub, directory=hub, trusted_proxies=())
    app = node_app([], [UploadRouter(gate=gate, uploads=uploads)], count=lambda *_: None, surprised=lambda: None)
    listener = Listener.bind(ListenerConfig(name="node", host="127.0.0.1", port=0), metrics=CountingMetrics())
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, app)
        sys.stdout.write(json.dumps({"port": listener.address[1]}) + "\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class UploadProcess:
    pid: int
    port: int
    process: trio.Process

    async def kill(self) -> None:
        """As a power cut does, but for what the kernel holds."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def upload_process(folder: Path, core: int | None = None) -> AsyncIterator[UploadProcess]:
    """Runs until the block is left, and is killed then."""
    command = [sys.executable, "-m", "tests.fakes.upload_gateway", str(folder)]
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = b""
        with trio.fail_after(READY_WITHIN_S):
            while not line.endswith(b"\n"):
                more = await process.stdout.receive_some()
                if not more:
                    raise RuntimeError("the process ended before it was ready")
                line += more
        yield UploadProcess(process.pid, json.loads(line)["port"], process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdout.aclose()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]))
