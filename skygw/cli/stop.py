"""`skygw stop`: sends the safing command to telescopes, all at once, and shows the proof device by device.

Where telescopes are named, nothing is looked up first; a telescope that is looked up is stopped as soon as it is found.
A name that several installations have means all of them: whoever asks for a stop is not asked a question back.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID, uuid4

import trio
from cyclopts import Parameter

from skygw.cli.command_words import devices_of, proof_doubt
from skygw.cli.running_gateway import Reach, RunningGateway, is_id, reach
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
    """Bring telescopes into a safe state. Exit code 0 says that every one was proved safe: all its devices read back.

    Parameters
    ----------
    telescopes
        Uids of telescopes; “skygw nodes” lists them.
    node
        Every telescope of this installation: number, uid or name. A name that several have stops them all, and says so.
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
    async with reach(by) as gateway:
        stopping = Stopping(gateway, command_type, timeout_s, terminal.note)
        with terminal.progress("stopping…"):
            await stopping.run(wanted)
    for problem in stopping.problems:
        terminal.complaint(problem)
    if not stopping.results:
        raise CommandFailed(
            "Nothing was stopped: no telescope was found.", {"code": "not_found", "outcome": "not_sent"}
        )
    doubts = {telescope: _doubt(result) for telescope, result in stopping.results.items()}
    if terminal.as_json:
        terminal.json([{**result, "doubt": doubts[telescope]} for telescope, result in stopping.results.items()])
    else:
        rows = [row for telescope, result in stopping.results.items() for row in _rows(result, doubts[telescope])]
        terminal.table(("TELESCOPE", "OUTCOME", "DEVICE", "STATE", "BASIS"), rows)
    is_safe = not any(doubts.values()) and not stopping.problems
    return ExitCode.OK if is_safe else ExitCode.FAILED


class Stopping:
    """Stops side by side: none waits for another's proof, nor for the look-up of others."""

    def __init__(
        self, gateway: RunningGateway, command_type: str, timeout_s: float, note: Callable[[str], None]
    ) -> None:
        self._gateway = gateway
        self._command_type = command_type
        self._timeout_s = timeout_s
        self._note = note
        self._begun: set[str] = set()
        self.results: dict[str, dict[str, Any]] = {}
        """What became of each telescope's stop, in the order in which that was known."""
        self.problems: list[str] = []
        """A sentence for each look-up that found nothing to stop, or perhaps not all."""

    async def run(self, wanted: Wanted) -> None:
        """Until it is known of every telescope what became of its stop."""
        async with trio.open_nursery() as nursery:
            self._begin(wanted.telescopes, nursery)
            for which in wanted.nodes:
                nursery.start_soon(self._look_up_node, which, nursery)
            if wanted.everything or wanted.observatories:
                nursery.start_soon(self._look_up_connected, wanted, nursery)

    def _begin(self, telescopes: Iterable[str], nursery: trio.Nursery) -> None:
        for telescope in telescopes:
            if telescope not in self._begun:
                self._begun.add(telescope)
                nursery.start_soon(self._stop_one, telescope)

    async def _stop_one(self, telescope: str) -> None:
        self.results[telescope] = await _stop_one(self._gateway, telescope, self._command_type, self._timeout_s)

    async def _look_up_node(self, which: str, nursery: trio.Nursery) -> None:
        """First among those connected, which the gateway knows by heart: their stops wait for nothing else. Then in the
        hub's database, unless it was a uid and found: another of that name may be away.
        """
        found = await self._connected_as(which)
        for node in found:
            self._begin(_telescopes(node), nursery)
        if not found or not is_id(which):
            try:
                known = [await self._gateway.node(which)] if is_id(which) else await self._gateway.named(which)
            except CommandFailed as error:
                doubt = "Whether others that are away have this name is not known: " if found else ""
                self.problems.append(f"{which}: {doubt}{error}")
                known = []
            uids = {node.get("uid") for node in found}
            found += [node for node in known if node.get("uid") not in uids]
        if len(found) > 1:
            self._note(
                f"{len(found)} installations have the name “{which}”, and all of them are stopped: "
                f"{', '.join(map(_described, found))}. One alone is stopped by its uid."
            )
        for node in found:
            self._begin(_telescopes(node), nursery)
        if found and not any(map(_telescopes, found)):
            self.problems.append(f"{which}: This installation has no telescope.")

    async def _connected_as(self, which: str) -> list[dict[str, Any]]:
        if which.isdecimal():  # a number is the database's own
            return []
        try:
            connected = await self._gateway.nodes(connected=True)
        except CommandFailed:
            return []  # the second look says what is wrong
        return [node for node in connected if which in (node.get("name"), node.get("uid"))]

    async def _look_up_connected(self, wanted: Wanted, nursery: trio.Nursery) -> None:
        try:
            connected = await self._gateway.nodes(connected=True)
        except CommandFailed as error:
            self.problems.append(str(error))
            return
        for node in connected:
            if wanted.includes(node):
                self._begin(_telescopes(node), nursery)


def _described(node: dict[str, Any]) -> str:
    count = len(_telescopes(node))
    there = "connected" if node.get("connected") else "not connected"
    return f"{node.get('uid')} ({there}, {count} telescope{'' if count == 1 else 's'})"


def _telescopes(node: dict[str, Any]) -> list[str]:
    return [str(uid) for uid in node.get("telescopes") or ()]


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


def _doubt(record: dict[str, Any]) -> str | None:
    """Why this telescope is not proved safe; `None` if every device of it was read back at rest."""
    if record.get("outcome") != "succeeded":
        return str(record.get("detail") or "the stop has not succeeded")
    return proof_doubt(record)


def _rows(record: dict[str, Any], doubt: str | None) -> list[tuple[object, ...]]:
    telescope, outcome = record.get("telescopeUid"), record.get("outcome")
    rows: list[tuple[object, ...]] = [
        (telescope, outcome, d.get("device_uid"), d.get("state"), d.get("basis")) for d in devices_of(record)
    ]
    return rows if doubt is None else [*rows, (telescope, outcome, "", doubt, "")]


def _uid(text: str, whose: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise StartupError(
            f"“{text[:80]}” is no {whose}'s uid, which is a UUID (“skygw nodes” lists them); an installation goes with "
            "--node"
        ) from None
