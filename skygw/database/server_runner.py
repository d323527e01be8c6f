"""PostgreSQL refuses to run as root; this finds a way to run it that changes nobody else's files or users.

As root two ways are tried, and neither adds a user or touches a parent directory's mode:

- a user namespace in which our uid has another number: on disk everything stays root's;
- where user namespaces are forbidden (most containers), an existing unprivileged uid that keeps the one
  capability it needs to pass through directories of ours it could not enter otherwise.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from skygw.errors import StartupError

PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerRunner:
    """How the server's programs are run: `prefix` goes before their argv, `file_owner` owns their files."""

    prefix: tuple[str, ...]
    file_owner: int
    major: str = ""
    """Major version of the programs, as in a data directory's PG_VERSION; known once they have been tried."""


def find_server_runner(postgres: Path) -> ServerRunner:
    """The first way that can run `postgres --version` here. Blocking: a few milliseconds per probe.

    Raises `StartupError` when every way is closed, with what the last one said.
    """
    us = os.geteuid()
    candidates = _ways_for_root() if us == 0 else [ServerRunner(prefix=(), file_owner=us)]
    said = "neither unshare nor setpriv is installed"
    for candidate in candidates:
        try:
            probe = subprocess.run(  # noqa: S603 -- our own argv
                [*candidate.prefix, str(postgres), "--version"],
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            continue
        if probe.returncode == 0:
            version = probe.stdout.split()[-1]
            return replace(candidate, major=version.split(".")[0])
        said = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
    raise StartupError(
        f"the embedded PostgreSQL cannot be run here ({said}): run as an ordinary user, "
        "or give the URL of a PostgreSQL server in SKYGW_DATABASE_URL"
    )


def _ways_for_root() -> list[ServerRunner]:
    # initdb looks its own uid up, so it has to be one that has a name on this machine.
    named = next((entry for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    if named is None:
        raise StartupError("the embedded PostgreSQL cannot run as root on a machine with no other user")
    ways: list[ServerRunner] = []
    if unshare := shutil.which("unshare"):
        ways.append(ServerRunner(prefix=(unshare, "--user", f"--map-user={named.pw_uid}"), file_owner=0))
    if setpriv := shutil.which("setpriv"):
        drop = (
            setpriv,
            f"--reuid={named.pw_uid}",
            f"--regid={named.pw_gid}",
            "--clear-groups",
            "--inh-caps=-all,+dac_override",
            "--ambient-caps=-all,+dac_override",
        )
        ways.append(ServerRunner(prefix=drop, file_owner=named.pw_uid))
    return ways


def give_tree(tree: Path, owner: int) -> None:
    """Make `owner` own `tree` and what is in it, if it does not yet (only root ever has to). Blocking."""
    if tree.lstat().st_uid == owner:
        return
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            os.chown(Path(folder) / name, owner, -1, follow_symlinks=False)
    # Last, so that a walk cut short is seen and begun again.
    os.chown(tree, owner, -1)
