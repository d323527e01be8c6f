"""`python -m tests.fleet.storm`: a whole fleet is cut at once and comes back at once; what that takes, in figures."""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio

from tests.benchmarks.processes import cpu_s, worker
from tests.fakes.gateway_process import gateway_process
from tests.fleet.fleet import LOOPBACK_LIMITS, installations, make_known

SEED = 3
CALM_S = 5.0
"""How long the witnesses are asked before the storm."""


@dataclass(frozen=True)
class Storm:
    """What it was like. Seconds. `waits` is in the order in which the nodes came back."""

    waits: list[float]
    tries: int
    troubles: list[str]
    epochs_grown: list[int]
    gateway_cpu_s: float
    calm: list[float]
    stormy: list[float]
    failures: list[str]
    complaints: list[str]

    @property
    def overtaken_by(self) -> int:
        """By how many nodes that came after it the most unlucky one was overtaken."""
        welcomed = sorted(range(len(self.waits)), key=self.waits.__getitem__)
        return max(place - turn for place, turn in enumerate(welcomed))

    def figures(self) -> str:
        lines = [
            ("nodes", str(len(self.waits))),
            ("all welcomed after", f"{max(self.waits):.2f} s"),
            ("median wait", f"{median(self.waits):.2f} s"),
            ("connects per second", f"{len(self.waits) / max(self.waits):.0f}"),
            ("gateway's processor per node", f"{self.gateway_cpu_s / len(self.waits) * 1_000:.2f} ms"),
            ("connections tried", str(self.tries)),
            ("overtaken by, at most", str(self.overtaken_by)),
            ("calls before, p50 / p99 / worst", three(self.calm)),
            ("calls meanwhile, p50 / p99 / worst", three(self.stormy)),
            ("calls meanwhile, that failed", str(len(self.failures))),
        ]
        told = [f"{name:36}{value}" for name, value in lines]
        return "\n".join([*told, *self.troubles, *self.failures[:5], *self.complaints[:5]])


def three(seconds: list[float]) -> str:
    """Median, 99th percentile and worst, in milliseconds."""
    ordered = sorted(seconds) or [float("nan")]
    picked = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])
    return " / ".join(f"{value * 1_000:.1f}" for value in picked) + f" ms ({len(seconds)})"


async def storm(data_dir: Path, *, nodes: int, witnesses: int, every_s: float, calm_s: float = CALM_S) -> Storm:
    """One storm over a gateway of its own, whose nodes are in another process and whose witnesses are in a third."""
    async with (
        gateway_process(data_dir, **LOOPBACK_LIMITS) as gateway,
        worker("tests.fleet.storm_nodes") as crowd,
        worker("tests.fleet.storm_witnesses") as staying,
    ):
        install_ids = installations(SEED, nodes + witnesses)
        await make_known(gateway, install_ids)
        pairs = [(str(install_id), gateway.node_token(install_id)) for install_id in install_ids]
        await staying.ask(
            {
                "do": "begin",
                "url": gateway.socket_url,
                "internal_url": gateway.internal_url,
                "nodes": pairs[nodes:],
                "service_token": gateway.service_token(),
                "every_s": every_s,
            }
        )
        await crowd.ask({"do": "connect", "url": gateway.socket_url, "nodes": pairs[:nodes]})
        await staying.ask({"do": "told"})
        await trio.sleep(calm_s)
        calm = await staying.ask({"do": "told"})
        used_s = cpu_s(gateway.pid)
        back = await crowd.ask({"do": "storm"})
        used_s = cpu_s(gateway.pid) - used_s
        stormy = await staying.ask({"do": "told"})
    return Storm(
        waits=back["waits"],
        tries=back["tries"],
        troubles=back["troubles"],
        epochs_grown=back["epochs_grown"],
        gateway_cpu_s=used_s,
        calm=calm["waits"],
        stormy=stormy["waits"],
        failures=stormy["failures"],
        complaints=gateway.complaints(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.storm", description=__doc__)
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--witnesses", type=int, default=50)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two calls of each witness")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skygw-storm-") as folder:
        seen = trio.run(
            lambda: storm(
                Path(folder, "hub"), nodes=arguments.nodes, witnesses=arguments.witnesses, every_s=arguments.every
            )
        )
    sys.stdout.write(seen.figures() + "\n")


if __name__ == "__main__":
    main()
