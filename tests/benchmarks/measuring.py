"""One repetition: the gateway and the bare server side by side, each load on the one and then on the other."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from skygw.ids import InstallId
from tests.benchmarks.plan import CALLERS, PAYLOAD_BYTES, Plan
from tests.benchmarks.processes import Worker, resident_kib, worker
from tests.benchmarks.report import GATEWAY, HTTP_ECHO, WEBSOCKET_ECHO, Report
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fleet.fleet import LOOPBACK_LIMITS, installations, make_known

SEED = 1
WARM_UP_CONNECTS = 10
"""Sockets before the memory is looked at: what is loaded at the first of them is not a connection's."""


@dataclass(frozen=True)
class Bench:
    """Everything that runs during one repetition."""

    gateway: GatewayProcess
    bare: Worker
    bare_port: int
    load: Worker
    install_ids: list[InstallId]

    def nodes(self, install_ids: Iterable[InstallId]) -> list[tuple[str, str]]:
        return [(str(install_id), self.gateway.node_token(install_id)) for install_id in install_ids]

    @property
    def bare_socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.bare_port}/echo"


async def repeat(plan: Plan, data_dir: Path, report: Report) -> None:
    """Runs one repetition on servers of its own and adds its figures. `data_dir` is kept between repetitions."""
    async with AsyncExitStack() as stack:
        bench = await _started(plan, data_dir, stack)
        await _memory(plan, bench, report)
        await _connects(plan, bench, report)
        node_id = bench.install_ids[0]
        node = await stack.enter_async_context(
            worker(
                "tests.benchmarks.echo_node",
                bench.gateway.socket_url,
                bench.gateway.node_token(node_id),
                str(node_id),
            )
        )
        await node.says()
        for callers in CALLERS:
            await _round_trips(plan, bench, callers, report)


async def _started(plan: Plan, data_dir: Path, stack: AsyncExitStack) -> Bench:
    gateway = await stack.enter_async_context(gateway_process(data_dir, **LOOPBACK_LIMITS))
    install_ids = installations(SEED, 1 + WARM_UP_CONNECTS + plan.idle_connections + plan.connects)
    await make_known(gateway, install_ids)
    bare = await stack.enter_async_context(worker("tests.benchmarks.bare_echo"))
    load = await stack.enter_async_context(worker("tests.benchmarks.load"))
    return Bench(gateway, bare, (await bare.says())["port"], load, install_ids)


async def _memory(plan: Plan, bench: Bench, report: Report) -> None:
    """First of all, on fresh processes: memory that was used once is seldom given back."""
    nodes = bench.nodes(bench.install_ids[1 : 1 + WARM_UP_CONNECTS + plan.idle_connections])
    report.add("memory per idle connection, KiB", GATEWAY, await _grown(bench, bench.gateway.pid, nodes))
    report.add(
        "memory per idle connection, KiB", WEBSOCKET_ECHO, await _grown(bench, bench.bare.pid, [None] * len(nodes))
    )


async def _grown(bench: Bench, pid: int, nodes: list[tuple[str, str]] | list[None]) -> float:
    """KiB of resident memory for each connection after the first few."""
    url = bench.bare_socket_url if nodes[0] is None else bench.gateway.socket_url
    idle = nodes[WARM_UP_CONNECTS:]
    await bench.load.ask({"do": "connect", "url": url, "nodes": nodes[:WARM_UP_CONNECTS]})
    before = resident_kib(pid)
    await bench.load.ask({"do": "connect", "url": url, "nodes": idle})
    grown = resident_kib(pid) - before
    await bench.load.ask({"do": "release"})
    return grown / len(idle)


async def _connects(plan: Plan, bench: Bench, report: Report) -> None:
    nodes = bench.nodes(bench.install_ids[-plan.connects :])
    for subject, url, sockets in (
        (GATEWAY, bench.gateway.socket_url, nodes),
        (WEBSOCKET_ECHO, bench.bare_socket_url, [None] * plan.connects),
    ):
        done = await bench.load.ask({"do": "connect", "url": url, "nodes": sockets})
        await bench.load.ask({"do": "release"})
        report.add("connects per second", subject, done["per_s"])


async def _round_trips(plan: Plan, bench: Bench, callers: int, report: Report) -> None:
    common = {"callers": callers, "seconds": plan.load_s, "token": None}
    direct = {"operation": "device.read", "params": {}}
    bare_url = f"http://127.0.0.1:{bench.bare_port}"
    jobs = {
        GATEWAY: {
            "do": "http",
            "url": bench.gateway.internal_url,
            "path": f"/internal/nodes/{bench.install_ids[0]}/direct",
            "body": json.dumps(direct),
            "token": bench.gateway.service_token("benchmark"),
        },
        HTTP_ECHO: {"do": "http", "url": bare_url, "path": "/echo", "body": "x" * PAYLOAD_BYTES},
        WEBSOCKET_ECHO: {"do": "websocket", "url": bench.bare_socket_url},
    }
    told = "1 caller" if callers == 1 else f"{callers} callers"
    for subject, job in jobs.items():
        done = await bench.load.ask({**common, **job})
        report.add(f"round trips per second, {told}", subject, done["per_s"])
        report.add(f"round trip p50, {told}, ms", subject, done["p50_ms"])
        report.add(f"round trip p99, {told}, ms", subject, done["p99_ms"])
