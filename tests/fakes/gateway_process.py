"""A gateway as operators run it, `skygw serve` in a process of its own, for tests of the whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from skygw.auth import development
from skygw.database.embedded import DATABASE, OWNER
from skygw.database.embedded_files import ClusterFiles
from skygw.ids import InstallId

READY_WITHIN_S = 60.0
"""A first start makes a database cluster; on a busy machine that is seconds."""
ENDS_WITHIN_S = 30.0
"""The drain has 10 s and PostgreSQL has 10 s after it."""
TOKEN_LIFETIME_S = 3_600.0

SERVICE_SCOPES = ("nodes:read", "nodes:call", "nodes:command", "nodes:admin", "streams:read")


@dataclass(frozen=True)
class GatewayProcess:
    """A gateway that is ready, on an embedded PostgreSQL in `data_dir`."""

    node_url: str
    internal_url: str
    pid: int
    data_dir: Path
    log: Path

    @property
    def socket_url(self) -> str:
        """Where nodes connect."""
        return f"ws://{self.node_url.partition('://')[2]}/v1/ws/node"

    @property
    def owner_url(self) -> str:
        """The embedded database as its owner, for provisioning; holds while the gateway runs."""
        files = ClusterFiles(self.data_dir.resolve() / "postgres")
        folder = files.root / "run"
        if files.short_run_note.exists():
            folder = Path(files.short_run_note.read_text())
        return f"postgresql://{OWNER}@/{DATABASE}?host={quote(str(folder), safe='')}"

    def node_token(self, install_id: InstallId) -> str:
        return self._token(str(install_id), "sky-node-gateway", ("node",))

    def service_token(self, service: str = "test") -> str:
        return self._token(service, "sky-node-gateway-internal", SERVICE_SCOPES)

    def _token(self, subject: str, audience: str, scopes: Collection[str]) -> str:
        return development.mint(
            development.load_or_make(self.data_dir),
            subject=subject,
            audience=audience,
            scopes=scopes,
            lifetime_s=TOKEN_LIFETIME_S,
            now=time.time(),
        )

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about this event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def complaints(self) -> list[str]:
        """What it logged at ERROR, and every traceback: nothing a peer does may cause one."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if '"level": "error"' in line or line.startswith("Traceback")]


@asynccontextmanager
async def gateway_process(
    data_dir: Path, core: int | None = None, /, **settings: str | float
) -> AsyncIterator[GatewayProcess]:
    """Runs `skygw serve` on free ports until the block is left, and then drains it.

    `settings` are the gateway's own, by name; everything else is its default. Its log is `<data_dir>.log`, begun anew
    by each start. Raises `RuntimeError` when it ends before it is ready, or not after it was told to.
    With `core` it runs on this processor core alone, and so does its PostgreSQL.
    """
    log = data_dir.with_name(f"{data_dir.name}.log")
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith("SKYGW_")}
    env |= {"SKYGW_DATA_DIR": str(data_dir), "SKYGW_NODE_PORT": "0", "SKYGW_INTERNAL_PORT": "0"}
    env |= {"XDG_CONFIG_HOME": str(data_dir.with_name("no-config"))}
    env |= {f"SKYGW_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "skygw.cli.main", "serve"], env=env, stdout=subprocess.PIPE, stderr=stderr
        )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    try:
        ready = await _ready_line(process)
        if ready is None:
            raise RuntimeError(f"the gateway did not get ready: {log.read_text()[-2_000:]}")
        yield GatewayProcess(ready["node"], ready["internal"], process.pid, data_dir, log)
    finally:
        with trio.CancelScope(shield=True):
            await _drained(process)


async def _ready_line(process: trio.Process) -> dict[str, str] | None:
    line = b""
    assert process.stdout is not None
    with trio.move_on_after(READY_WITHIN_S):
        while not line.endswith(b"\n") and (more := await process.stdout.receive_some()):
            line += more
    return json.loads(line) if line.endswith(b"\n") else None


async def _drained(process: trio.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    with trio.move_on_after(ENDS_WITHIN_S) as patience:
        await process.wait()
    if patience.cancelled_caught:
        process.kill()
        await process.wait()
        raise RuntimeError(f"the gateway did not end within {ENDS_WITHIN_S:.0f} s of SIGTERM")
    assert process.stdout is not None
    await process.stdout.aclose()
