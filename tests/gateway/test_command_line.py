"""`skygw command` against a whole gateway and a simulated telescope, judged by what the mount did."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from skygw.sim.journal import Action, movers_of
from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway, open_installation

PATIENCE_S = 30.0
FAR = ("target.position_type=horizontal", "target.alt_deg=35", "target.az_deg=200")


async def commanded(gateway: TestGateway, *argv: object) -> int:
    """`skygw command …` in this process; its exit code."""
    words = ["command", *map(str, argv), "--url", gateway.internal_url, "--token", gateway.service_token()]
    return await trio.to_thread.run_sync(run, words)


class Program:
    """`skygw …` in a process that can be interrupted; what it wrote, as it comes."""

    def __init__(self, gateway: TestGateway, *argv: str) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SKYGW_")}
        self._argv = [sys.executable, "-m", "skygw.cli.main", *argv]
        self._environment = {**ours, "SKYGW_URL": gateway.internal_url, "SKYGW_TOKEN": gateway.service_token()}
        self.written = ""

    @asynccontextmanager
    async def started(self) -> AsyncIterator["Program"]:
        async with trio.open_nursery() as nursery:
            self.process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    self._argv,
                    env=self._environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                    # Whoever runs the tests in the background of a shell ignores Ctrl-C, and hands that on.
                    preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
                )
            )
            yield self
            nursery.cancel_scope.cancel()

    async def until(self, text: str) -> None:
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE_S):
            while text not in self.written:
                piece = await self.process.stdout.receive_some()
                assert piece, self.written
                self.written += piece.decode()

    async def both_are_live(self) -> None:
        await self.until("event_live")
        with trio.fail_after(PATIENCE_S):
            while self.written.count("event_live") < 2:
                assert self.process.stdout is not None
                self.written += (await self.process.stdout.receive_some()).decode()

    async def ended(self) -> int:
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE_S):
            async for piece in self.process.stdout:
                self.written += piece.decode()
            return await self.process.wait()


@pytest.fixture
async def slow_mount(gateway: TestGateway, tmp_path: Path) -> AsyncIterator[Station]:
    """One whose slews take many seconds."""
    async with open_installation(gateway, directory=tmp_path / "slow", time_scale=2.0) as station:
        yield station


async def record(gateway: TestGateway, command_id: UUID) -> dict[str, Any]:
    async with gateway.client() as hub:
        return dict((await hub.get(f"/internal/commands/{command_id}")).json())


async def test_a_command_is_sent_under_a_lease_of_its_own_and_proved(
    gateway: TestGateway, installation: Station, capsys: pytest.CaptureFixture[str]
) -> None:
    mount, command_id = installation.site.telescopes[0].mount, uuid4()
    code = await commanded(gateway, mount.uid, "mount.unpark", "--take-lease", "--id", command_id)
    written = capsys.readouterr()

    assert code == ExitCode.OK, written.err
    assert movers_of(mount.uid, installation.journal.entries()) == [str(command_id)]
    _, proof, last = written.out.splitlines()
    assert proof.split()[0] == str(mount.uid)
    assert last == "mount.unpark succeeded; every device was read back."
    told = [line.split()[1] for line in written.err.splitlines()]
    assert (told[0], told[-1]) == ("received", "completed")
    async with gateway.client() as hub:
        leases = (await hub.get("/internal/leases")).json()["items"]
    assert [(lease["held"], lease["ended"], lease["onExpiry"]) for lease in leases] == [(False, "released", "finish")]


async def test_who_does_not_have_control_is_told_who_has_and_nothing_moves(
    gateway: TestGateway, installation: Station, capsys: pytest.CaptureFixture[str]
) -> None:
    telescope = installation.site.telescopes[0]
    async with gateway.client(service="planner") as planner:
        held = await planner.post("/internal/leases", json={"telescopeUid": str(telescope.uid)})
    assert held.status_code == 201
    hows = [(), ("--take-lease",), ("--dry-run",)]
    codes = [await commanded(gateway, telescope.uid, "mount.unpark", *how) for how in hows]
    written = capsys.readouterr()

    assert codes == [ExitCode.NOT_SENT] * 3
    assert [line.split()[0] for line in (written.err + written.out).splitlines()] == ["skygw:", "skygw:", "lease_held:"]
    assert (written.err + written.out).count("planner") == 3
    assert movers_of(telescope.mount.uid, installation.journal.entries()) == []


async def test_ctrl_c_leaves_a_slew_alone_and_a_second_one_interrupts_it_with_proof(
    gateway: TestGateway, slow_mount: Station
) -> None:
    mount, slew = slow_mount.site.telescopes[0].mount, uuid4()
    await commanded(gateway, mount.uid, "mount.unpark", "--take-lease")
    program = Program(gateway, "command", str(mount.uid), "mount.point", *FAR, "--take-lease", "--id", str(slew))
    async with program.started():
        await program.until("  running")
        program.process.send_signal(signal.SIGINT)
        await program.until("The command goes on.")
        at_first = await record(gateway, slew)
        program.process.send_signal(signal.SIGINT)
        code = await program.ended()

    assert at_first["state"] == "running"
    assert code == ExitCode.CANCELED, program.written
    assert "It was interrupted, and its devices were read back." in program.written
    assert program.written.splitlines()[-1] == "mount.point was interrupted on the way; every device was read back."
    did = [entry.action for entry in slow_mount.journal.entries() if entry.device_uid == str(mount.uid)]
    assert did[-2:] == [Action.SLEW_STARTED, Action.SLEW_STOPPED]


async def test_a_watch_of_commands_tells_what_was_sent_and_each_step(
    gateway: TestGateway, installation: Station, capsys: pytest.CaptureFixture[str]
) -> None:
    telescope, command_id = installation.site.telescopes[0], uuid4()
    watch = Program(gateway, "watch", "commands", "--json", "--telescope", str(telescope.uid))
    async with watch.started():
        await watch.both_are_live()
        code = await commanded(gateway, telescope.mount.uid, "mount.unpark", "--take-lease", "--id", command_id)
        await watch.until('"status":"completed"')
        watch.process.send_signal(signal.SIGINT)
        ended = await watch.ended()
    *lines, last = watch.written.splitlines()
    told = [json.loads(line) for line in lines]
    data = [message["data"] for message in told if message.get("data", {}).get("command_id") == str(command_id)]
    positions = {message["subscription_id"]: message["position"] for message in told if "position" in message}

    assert (code, ended) == (ExitCode.OK, ExitCode.OK)
    assert [one["command"] for one in data if "command" in one] == [{"command_type": "mount.unpark"}]
    steps = [one["status"] for one in data if "status" in one]
    assert steps == [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert set(last.split()[2].split(",")) == set(positions.values())
