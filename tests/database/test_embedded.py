"""The embedded PostgreSQL comes up, heals and goes, whatever happened before."""
# ruff: noqa: ASYNC220, ASYNC240 -- a test may block for a moment

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
import trio

from skygw.database.embedded import EmbeddedCluster, embedded_postgres
from skygw.database.embedded_files import ClusterFiles, is_server_of
from skygw.errors import StartupError

PATIENCE_S = 20.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has more than one way to run the server")

HOLD = textwrap.dedent("""
    import sys
    from pathlib import Path
    import psycopg, trio
    from skygw.database.embedded import embedded_postgres

    async def main():
        async with embedded_postgres(Path(sys.argv[1])) as cluster:
            with psycopg.connect(cluster.owner_url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
            print(cluster.pid, flush=True)
            if len(sys.argv) == 2:
                await trio.sleep_forever()

    trio.run(main)
""")


def ask(cluster: EmbeddedCluster, query: str) -> object:
    with psycopg.connect(cluster.owner_url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


async def answers_again(cluster: EmbeddedCluster, old_pid: int | None) -> bool:
    with trio.move_on_after(PATIENCE_S):
        while True:
            if cluster.pid not in (None, old_pid):
                try:
                    ask(cluster, "SELECT 1")
                except psycopg.OperationalError:
                    pass
                else:
                    return True
            await trio.sleep(0.01)
    return False


async def test_a_fresh_folder_becomes_a_cluster_with_safe_settings(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "new") as cluster:
        assert ask(cluster, "SHOW fsync") == "on"
        assert ask(cluster, "SHOW listen_addresses") == ""
        assert ask(cluster, "SELECT datcollate || datlocale FROM pg_database WHERE datname = 'postgres'") == (
            "CC.UTF-8"
        )
        assert ask(cluster, "SELECT current_user") == "skynet_owner"


async def test_what_was_written_is_there_at_the_next_start(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as cluster:
        ask(cluster, "CREATE TABLE noted (answer int)")
        ask(cluster, "INSERT INTO noted VALUES (42) RETURNING 1")
    async with embedded_postgres(data_dir) as cluster:
        assert ask(cluster, "SELECT answer FROM noted") == 42


async def test_leaving_ends_the_server(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as cluster:
        pid = cluster.pid
        assert pid is not None
    assert not Path("/proc", str(pid)).exists()
    assert cluster.pid is None


async def test_cancelling_ends_the_server_too(data_dir: Path) -> None:
    with trio.CancelScope() as scope:
        async with embedded_postgres(data_dir) as cluster:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert cluster.pid is None
    assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()


async def test_an_exception_of_the_body_comes_out_as_it_is(data_dir: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with embedded_postgres(data_dir):
            raise LookupError("mine")


async def test_a_second_gateway_on_the_same_folder_is_told_who_holds_it(data_dir: Path) -> None:
    async with embedded_postgres(data_dir):
        with pytest.raises(StartupError, match=rf"another gateway \(process {os.getpid()}\)"):
            async with embedded_postgres(data_dir):
                pass


async def test_a_server_that_dies_is_started_again(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as cluster:
        pid = cluster.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await answers_again(cluster, pid)


async def test_a_server_killed_on_purpose_stays_down_until_it_is_started(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as cluster:
        old = cluster.pid
        await cluster.kill()
        await cluster.kill()
        assert cluster.pid is None
        with pytest.raises(psycopg.OperationalError):
            ask(cluster, "SELECT 1")
        await cluster.start()
        await cluster.start()
        assert cluster.pid not in (None, old)
        assert ask(cluster, "SELECT 1") == 1
        pid = cluster.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await answers_again(cluster, pid)


async def test_a_server_left_by_a_killed_gateway_is_ended_and_its_data_kept(data_dir: Path) -> None:
    gateway = subprocess.Popen([sys.executable, "-c", HOLD, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    with gateway.stdout:
        leftover = int(gateway.stdout.readline())
        gateway.kill()
        gateway.wait()
    files = ClusterFiles(data_dir / "postgres")
    assert is_server_of(files, leftover)
    async with embedded_postgres(data_dir) as cluster:
        assert not is_server_of(files, leftover)
        assert ask(cluster, "SELECT count(*) FROM kept") == 0


async def test_a_server_of_somebody_else_under_a_noted_pid_is_left_alone(data_dir: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        noted = data_dir / "postgres" / "data" / "postmaster.pid"
        noted.write_text(f"{bystander.pid}\n{noted.parent}\n1700000000\n5432\n{data_dir}\n\n  1 1\nready   \n")
        async with embedded_postgres(data_dir) as cluster:
            assert ask(cluster, "SELECT 1") == 1
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_folder_half_made_by_a_killed_initdb_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.unfinished"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(tmp_path) as cluster:
        assert ask(cluster, "SELECT 1") == 1
    assert not half.exists()


async def test_a_long_path_gets_a_short_socket_folder_that_is_removed(data_dir: Path) -> None:
    long = data_dir / ("d" * 100)
    long.mkdir()
    (data_dir / "postgres").rename(long / "postgres")
    async with embedded_postgres(long) as cluster:
        assert ask(cluster, "SELECT 1") == 1
        run = Path(str(ask(cluster, "SELECT trim(both '\"' from current_setting('unix_socket_directories'))")))
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert not run.exists()


async def test_files_of_another_major_version_are_refused_with_a_sentence(data_dir: Path) -> None:
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("11\n")
    with pytest.raises(StartupError, match="are of PostgreSQL 11"):
        async with embedded_postgres(data_dir):
            pass


async def test_a_server_that_cannot_start_is_a_sentence_with_what_it_said(data_dir: Path) -> None:
    (data_dir / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(StartupError, match=r"did not start: .*configuration file"):
        async with embedded_postgres(data_dir):
            pass


async def test_a_data_directory_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        async with embedded_postgres(tmp_path / "file"):
            pass


async def test_our_folder_is_private_and_the_parents_keep_their_modes(data_dir: Path) -> None:
    modes = {folder: folder.stat().st_mode for folder in (data_dir, *data_dir.parents)}
    (data_dir / "postgres").chmod(0o755)
    async with embedded_postgres(data_dir):
        assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700
    assert {folder: folder.stat().st_mode for folder in modes} == modes


@needs_root
async def test_root_without_user_namespaces_runs_the_server_under_a_plain_uid(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "setpriv").symlink_to(shutil.which("setpriv") or pytest.skip("no setpriv here"))
    monkeypatch.setenv("PATH", str(programs))
    data_dir.chmod(0o700)
    async with embedded_postgres(data_dir) as cluster:
        assert ask(cluster, "SELECT 1") == 1
        status = Path("/proc", str(cluster.pid), "status").read_text()
        assert "Uid:\t0" not in status
        assert (data_dir / "postgres" / "data").stat().st_uid != 0


@needs_root
def test_an_ordinary_user_needs_no_help(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 1, 1)
    # The capability is there only to reach a Python that may be installed in root's home.
    drop = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups"]
    drop += [
        "--inh-caps=-all,+dac_read_search,+dac_override",
        "--ambient-caps=-all,+dac_read_search,+dac_override",
    ]
    done = subprocess.run(
        [*drop, sys.executable, "-c", HOLD, str(home), "once"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    assert (home / "postgres" / "data").stat().st_uid == 1
