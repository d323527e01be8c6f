"""`python -m tests.fleet.storm`: a whole fleet is cut at once and comes back at once; what that takes, in figures.

The nodes do not wait a random time before they come back, as real ones do, and all of them are on one machine with the
gateway and its database.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import trio

from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.processes import Worker, worker
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fleet.fleet import LOOPBACK_LIMITS, installations, make_known

SEED = 3
CALM_S = 5.0
"""How long the witnesses are asked before the storm."""
OVER_WITHIN_S = 240.0
"""Given up after this."""


@dataclass(frozen=True)
class Back:
    """How the nodes came back. Seconds, in the order in which they asked to be let in."""

    waits: list[float]
    tries: int
    troubles: list[str]
    epochs: list[int]
    gateway_cpu_s: float
    complaints: list[str]

    @property
    def overtaken_by(self) -> int:
        """How many nodes that asked later were welcomed before the one that was overtaken most."""
        return max(self._late())

    @property
    def out_of_order(self) -> float:
        """By how many places of all a node was early or late, on average: 0 is in order, a third is as it comes."""
        late = self._late()
        return sum(abs(places) for places in late) / len(late) ** 2

    def _late(self) -> list[int]:
        welcomed = sorted(range(len(self.waits)), key=self.waits.__getitem__)
        return [place - turn for place, turn in enumerate(welcomed)]

    def figures(self) -> list[tuple[str, str]]:
        nodes, last = len(self.waits), max(self.waits)
        return [
            ("nodes", str(nodes)),
            ("all welcomed after", f"{last:.2f} s"),
            ("median wait", f"{median(self.waits):.2f} s"),
            ("welcomes per second", f"{nodes / last:.0f}"),
            ("connections tried", str(self.tries)),
            ("overtaken by, at most", str(self.overtaken_by)),
            ("out of order (a third is as it comes)", f"{self.out_of_order:.3f}"),
            ("gateway's processor time per node", f"{self.gateway_cpu_s / nodes * 1_000:.2f} ms"),
            *[("a node's trouble", trouble) for trouble in self.troubles],
            *[("the gateway's complaint", complaint) for complaint in self.complaints],
        ]


@dataclass(frozen=True)
class Stayed:
    """What those saw that stayed connected: waits of calls to them, in seconds."""

    calm: list[float]
    stormy: list[float]
    failures: list[str]
    links_ended: int

    def figures(self) -> list[tuple[str, str]]:
        return [
            ("calls to the others before, p50 / p99 / worst", _three(self.calm)),
            ("calls to the others meanwhile", _three(self.stormy)),
            *[("a call that failed", failure) for failure in self.failures],
        ]


def _three(seconds: list[float]) -> str:
    """Median, 99th percentile and worst, in milliseconds."""
    ordered = sorted(seconds) or [float("nan")]
    picked = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])
    return " / ".join(f"{value * 1_000:.1f}" for value in picked) + f" ms ({len(seconds)} calls)"


async def cut_by_the_way(
    data_dir: Path, *, nodes: int, witnesses: int, every_s: float, calm_s: float = CALM_S
) -> tuple[Back, Stayed]:
    """All links but the witnesses' break. Nodes, witnesses and gateway each have a process of their own."""
    async with (
        gateway_process(data_dir, **LOOPBACK_LIMITS) as gateway,
        worker("tests.fleet.storm_nodes") as crowd,
        worker("tests.fleet.storm_witnesses") as staying,
    ):
        pairs = await _known(gateway, nodes + witnesses)
        staff = {"nodes": pairs[nodes:], "service_token": gateway.service_token(), "every_s": every_s}
        urls = {"url": gateway.socket_url, "internal_url": gateway.internal_url}
        await staying.ask({"do": "begin", **urls, **staff})
        await _connect(crowd, gateway, pairs[:nodes])
        await staying.ask({"do": "told"})
        await trio.sleep(calm_s)
        calm = await staying.ask({"do": "told"})
        used_s = cpu_seconds(gateway.pid)
        said = await crowd.ask({"do": "cut"}, within_s=OVER_WITHIN_S)
        used_s = cpu_seconds(gateway.pid) - used_s
        stormy = await staying.ask({"do": "told"})
        stayed = Stayed(
            [waited for _, waited in calm["waits"]],
            [waited for _, waited in stormy["waits"]],
            stormy["failures"],
            stormy["links_ended"],
        )
        return Back(**said, gateway_cpu_s=used_s, complaints=gateway.complaints()), stayed


async def cut_by_the_gateway(data_dir: Path, *, nodes: int) -> Back:
    """The gateway is killed with all links and started again. Waits count from when it is ready."""
    async with worker("tests.fleet.storm_nodes") as crowd:
        async with gateway_process(data_dir, **LOOPBACK_LIMITS) as gateway:
            await _connect(crowd, gateway, await _known(gateway, nodes))
            port = urlsplit(gateway.node_url).port or 0
            killed_at = time.monotonic()
            os.kill(gateway.pid, signal.SIGKILL)
        async with gateway_process(data_dir, node_port=port, **LOOPBACK_LIMITS) as gateway:
            ready_s, used_s = time.monotonic() - killed_at, cpu_seconds(gateway.pid)
            said = await crowd.ask({"do": "back", "since": killed_at}, within_s=OVER_WITHIN_S)
            used_s = cpu_seconds(gateway.pid) - used_s
            said["waits"] = [max(0.0, wait - ready_s) for wait in said["waits"]]
            return Back(**said, gateway_cpu_s=used_s, complaints=gateway.complaints())


async def _known(gateway: GatewayProcess, count: int) -> list[tuple[str, str]]:
    """So many installations with their tokens."""
    install_ids = installations(SEED, count)
    await make_known(gateway, install_ids)
    return [(str(install_id), gateway.node_token(install_id)) for install_id in install_ids]


async def _connect(crowd: Worker, gateway: GatewayProcess, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return await crowd.ask({"do": "connect", "url": gateway.socket_url, "nodes": pairs}, within_s=OVER_WITHIN_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.storm", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--witnesses", type=int, default=50)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two calls of each witness")
    arguments = parser.parse_args()

    nodes, witnesses, every_s = arguments.nodes, arguments.witnesses, arguments.every
    with tempfile.TemporaryDirectory(prefix="skygw-storm-") as name:
        cut = partial(cut_by_the_way, Path(name, "cut"), nodes=nodes, witnesses=witnesses, every_s=every_s)
        back, stayed = trio.run(cut)
        _show("The way to the gateway breaks", [*back.figures(), *stayed.figures()])
        again = trio.run(partial(cut_by_the_gateway, Path(name, "killed"), nodes=nodes))
        _show("The gateway is killed and started again", again.figures())


def _show(title: str, figures: list[tuple[str, str]]) -> None:
    lines = [f"{what:46}{how_much}" for what, how_much in figures]
    sys.stdout.write("\n".join([title, *lines, "", ""]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
