"""`skygw stop`: sends the safing command to telescopes, all at once, and shows the proof device by device.

Where telescopes are named, nothing is looked up first: the stop is the first thing that goes out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID, uuid4

import trio
from cyclopts import Parameter

from skygw.cli.running_gateway import Reach, RunningGateway, reach
from skygw.cli.terminal import AsJson, CommandFailed, ExitCode, Terminal
from skygw.errors import StartupError

SAFING = re.compile(r"telescope\.safe_shutdown|[a-z_.]+\.(stop|abort)")
TRIES = 3
"""The same command id is one command, however often it is sent: a broken connection is no reason to give up."""
PATIENCE_S = 5.0
LONGEST_WAIT_S = 600.0


@dataclass(frozen=True)
class Wanted:
    """What is to be stopped."""

    telescopes: Sequence[str]
    nodes: Sequence[str]
    observatories: Sequence[str]
    everything: bool

    def includes(self, node: dict[str, Any]) -> bool:
        """Whether a connected installation is among what is to be stopped."""
        return self.everything or node.get("observatoryUid") in self.observatories


def stop(
    *telescopes: str,
    node: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    observatory: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    command_type: str = "telescope.safe_shutdown",
    timeout_s: float = 300.0,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Bring telescopes into a safe state. Exit code 0 says that every one of them reported success.

    Parameters
    ----------
    telescopes
        Uids of telescopes.
    node
        Every telescope of this installation: number, uid or name.
    observatory
        Every telescope of this observatory (its uid) whose installation is connected.
    all_
        Every telescope of every installation that is connected.
    command_type
        Another safing command, such as mount.stop.
    timeout_s
        Seconds to wait for the proof.
    """
    if not telescopes and not node and not observatory and not all_:
        raise StartupError("name the telescopes to stop, or an installation with --node, an --observatory, or --all")
    if not SAFING.fullmatch(command_type):
        raise StartupError(
            f"{command_type[:80]} is no safing command: choose telescope.safe_shutdown, *.stop or *.abort"
        )
    if not 0 < timeout_s <= LONGEST_WAIT_S:
        raise StartupError(f"--timeout-s is {timeout_s:g}, but should be more than 0 and at most {LONGEST_WAIT_S:g}")
    wanted = Wanted(
        telescopes=tuple(_uid(uid, "telescope") for uid in telescopes),
        nodes=node,
        observatories=tuple(_uid(uid, "observatory") for uid in observatory),
        everything=all_,
    )
    return trio.run(partial(_stop, wanted, command_type, timeout_s, reach_by, Terminal(as_json=as_json)))


async def _stop(wanted: Wanted, command_type: str, timeout_s: float, by: Reach | None, terminal: Terminal) -> int:
    results: dict[str, dict[str, Any]] = {}
    async with reach(by) as gateway:
        with terminal.progress("stopping…"):
            await stop_each(gateway, wanted.telescopes, command_type, timeout_s, results=results)
            found, problems = await _look_up(gateway, wanted)
            later = [uid for uid in found if uid not in results]
            await stop_each(gateway, later, command_type, timeout_s, results=results)
    for problem in problems:
        terminal.complaint(problem)
    if not results:
        raise CommandFailed(
            "Nothing was stopped: no telescope was found.", {"code": "not_found", "outcome": "not_sent"}
        )
    if terminal.as_json:
        terminal.json(list(results.values()))
    else:
        rows = [row for result in results.values() for row in _rows(result)]
        terminal.table(("TELESCOPE", "OUTCOME", "DEVICE", "STATE", "BASIS"), rows)
    stopped = all(result.get("outcome") == "succeeded" for result in results.values())
    return ExitCode.OK if stopped and not problems else ExitCode.FAILED


async def stop_each(
    gateway: RunningGateway,
    telescopes: Sequence[str],
    command_type: str,
    timeout_s: float,
    *,
    results: dict[str, dict[str, Any]],
) -> None:
    """Stop all of them side by side; one that fails holds up no other. Fills `results` by telescope."""

    async def one(telescope: str) -> None:
        results[telescope] = await _stop_one(gateway, telescope, command_type, timeout_s)

    async with trio.open_nursery() as nursery:
        for telescope in dict.fromkeys(telescopes):
            nursery.start_soon(one, telescope)


async def _stop_one(gateway: RunningGateway, telescope: str, command_type: str, timeout_s: float) -> dict[str, Any]:
    deadline = trio.current_time() + timeout_s
    command_id = str(uuid4())
    tries = 0
    while True:
        left_s = max(0.1, deadline - trio.current_time())
        body = {
            "telescopeUid": telescope,
            "commandId": command_id,
            "command": {"command_type": command_type},
            "origin": {"program": "skygw stop"},
            "timeoutS": left_s,
            "waitS": left_s,
        }
        tries += 1
        try:
            return await gateway.post("/internal/commands", body, timeout_s=left_s + PATIENCE_S)
        except CommandFailed as error:
            if error.problem["code"] != "unreachable" or tries == TRIES or trio.current_time() >= deadline:
                return {"outcome": "unknown", **error.problem, "telescopeUid": telescope, "detail": str(error)}


async def _look_up(gateway: RunningGateway, wanted: Wanted) -> tuple[list[str], list[str]]:
    """The telescopes of these installations, and a sentence for each that could not be looked up."""
    found, problems = [], []
    for which in wanted.nodes:
        try:
            found.append(await gateway.node(which))
        except CommandFailed as error:
            problems.append(f"{which}: {error}")
    if wanted.everything or wanted.observatories:
        try:
            found += [node for node in await gateway.nodes(connected=True) if wanted.includes(node)]
        except CommandFailed as error:
            problems.append(str(error))
    return [str(uid) for node in found for uid in node.get("telescopes") or ()], problems


def _rows(record: dict[str, Any]) -> list[tuple[object, ...]]:
    telescope, outcome = record.get("telescopeUid"), record.get("outcome")
    devices = (record.get("proof") or {}).get("devices") or []
    if not devices:
        return [(telescope, outcome, "", record.get("detail") or "no proof given", "")]
    return [(telescope, outcome, d.get("device_uid"), d.get("state"), d.get("basis")) for d in devices]


def _uid(text: str, whose: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise StartupError(
            f"“{text[:80]}” is no {whose}'s uid, which is a UUID; an installation goes with --node"
        ) from None
