"""`skygw nodes` and `skygw why`: what the gateway knows of the installations."""

from dataclasses import asdict
from functools import partial
from typing import Any

import trio

from skygw.cli.running_gateway import Reach, reach
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.cli.why import explain


def nodes(*, reach_by: Reach | None = None, as_json: AsJson = False) -> int:
    """List the installations, whether they are connected, and the telescopes of each, as “skygw stop” takes them."""
    return trio.run(partial(_nodes, reach_by, Terminal(as_json=as_json)))


def why(node: str, /, *, reach_by: Reach | None = None, as_json: AsJson = False) -> int:
    """Say in one sentence what is the matter with a node, and what to do next.

    Parameters
    ----------
    node
        Its number, uid or name.
    """
    return trio.run(partial(_why, node, reach_by, Terminal(as_json=as_json)))


async def _nodes(reach_by: Reach | None, terminal: Terminal) -> int:
    async with reach(reach_by) as gateway:
        with terminal.progress("asking the gateway…"):
            found = await gateway.nodes()
    if terminal.as_json:
        terminal.json(found)
        return ExitCode.OK
    rows = [
        (
            node.get("name"),
            node.get("uid"),
            "yes" if node.get("connected") else "no",
            node.get("since") if node.get("connected") else (node.get("lastClose") or {}).get("at"),
            node.get("callsInFlight"),
            node.get("softwareVersion"),
            _telescopes(node),
        )
        for node in found
    ]
    styles = ["" if node.get("connected") else "red" for node in found]
    if not found:
        terminal.note("the gateway knows no installation")
    terminal.table(("NAME", "UID", "CONNECTED", "SINCE", "CALLS", "VERSION", "TELESCOPES"), rows, styles=styles)
    return ExitCode.OK


async def _why(which: str, reach_by: Reach | None, terminal: Terminal) -> int:
    async with reach(reach_by) as gateway:
        with terminal.progress("asking the gateway…"):
            node = await gateway.node(which)
    finding = explain(node)
    if terminal.as_json:
        terminal.json({"node": node.get("uid"), "telescopes": node.get("telescopes") or [], **asdict(finding)})
    else:
        terminal.line(finding.sentence)
        terminal.line(f"Next: {finding.action}")
        if telescopes := _telescopes(node):
            terminal.line(f"To stop what it moves: skygw stop {telescopes}")
    return ExitCode.OK


def _telescopes(node: dict[str, Any]) -> str:
    return " ".join(map(str, node.get("telescopes") or ()))
