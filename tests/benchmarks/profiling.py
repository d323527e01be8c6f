"""`python -m tests.benchmarks.profiling`: where the time of each message goes, in the server on its one core.

Samples of the event loop's thread while it is busy (py-spy, which the extra `benchmarks` brings), each counted once:
for the innermost call that belongs to one of the `PARTS`; what the standard library does is its caller's.
"""

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.table import Table

from tests.benchmarks.echo_figures import SERVERS
from tests.benchmarks.gateway_figures import NODES_SENT_TO, our_gateway
from tests.benchmarks.plan import FULL, MESSAGE_BYTES
from tests.benchmarks.processes import cores, worker
from tests.benchmarks.report import OURS
from tests.benchmarks.telemetry_figures import publishing_nodes
from tests.fleet.fleet import installations

SAMPLES_PER_S = 250
SETTLING_S = 4.0
RECORDED_S = 8.0
LOAD_S = SETTLING_S + RECORDED_S + 1.5
"""The load outlasts the recording, py-spy's own start included."""

EVENT_LOOP = "run (trio/_core/_run.py"

PARTS = (
    ("bytes to and from the kernel", r"\((skygw/websocket/transport|trio/_socket|trio/_highlevel_socket)\.py"),
    ("waiting for sockets (epoll)", r"\(trio/_core/_io_epoll\.py"),
    ("Trio: tasks, cancel scopes, checkpoints", r"\((trio|outcome)/"),
    ("frames: taken apart and built", r"\(skygw/websocket/frames\.py"),
    ("the WebSocket around them", r"\(skygw/websocket/"),
    ("HTTP parsed and written (h11)", r"\(h11/"),
    ("serving: our listener and Hypercorn's protocol", r"\((skygw/serving|hypercorn)/"),
    ("Quart and its sockets", r"\((quart|quart_trio|werkzeug|skygw/routers/quart_socket)"),
    ("tokens: signature and claims", r"\((jwt|cryptography|skygw/auth)/"),
    ("JSON and validation: frames and bodies", r"\((pydantic|pydantic_core|skygw/protocol|skygw/routers/schemas)"),
    ("numbers for /metrics", r"\((prometheus_client|skygw/observability)/"),
    ("the log: reports written, events read", r"\((skygw/database|asyncpg|triopg|trio_asyncio|asyncio)/"),
    ("the latest values: kept and written down", r"\(skygw/telemetry/(retained|kept_values|freshness|instruments|hub)"),
    ("telling subscribers", r"\(skygw/telemetry/"),
    ("the session: reading, outbox, calls", r"\(skygw/nodes/"),
    ("the call: deadline, digest, record", r"\(skygw/control/"),
    ("the doors", r"\(skygw/routers/"),
    ("the echo itself", r"\(tests/benchmarks/servers/skygw_echo"),
    ("the source of frames", r"\(tests/benchmarks/servers/session_source"),
)
RULES = [(part, re.compile(pattern)) for part, pattern in PARTS]
OTHER = "the rest"

WHAT = ("echo", "rpc", "out", "snapshots", "arrays", "commands", "deliveries", "durable")

Job = dict[str, Any]


@asynccontextmanager
async def busy_server(what: str, callers: int) -> AsyncIterator[tuple[int, Job]]:
    """The process to look at, and the load that keeps it busy."""
    core, _ = cores()
    async with AsyncExitStack() as stack:
        if what == "echo":
            server = await stack.enter_async_context(worker(*SERVERS[OURS], core=core))
            port = (await server.says())["port"]
            job: Job = {"do": "echo", "port": port, "bytes": MESSAGE_BYTES, "sockets": callers, "at_once": 1}
            yield server.pid, {**job, "server": server.pid}
        elif what == "out":
            server = await stack.enter_async_context(
                worker("tests.benchmarks.servers.session_source", str(NODES_SENT_TO), core=core)
            )
            nodes = [(str(install_id), "") for install_id in installations(1, NODES_SENT_TO)]
            port = (await server.says())["port"]
            yield server.pid, {"do": "puts", "port": port, "nodes": nodes, "server": server.pid}
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skygw-profile-")))
            gateway, process = await our_gateway(folder / "hub", core, stack)
            nodes = [gateway.node(install_id) for install_id in await publishing_nodes(process, FULL.nodes)]
            if what in ("snapshots", "arrays"):
                yield gateway.pid, gateway.job(do="snapshots", nodes=nodes, in_arrays=what == "arrays")
            elif what == "deliveries":
                followed = nodes[: FULL.nodes // 10]
                yield gateway.pid, gateway.job(do="deliveries", nodes=followed, subscribers=callers)
            elif what == "commands":
                yield gateway.pid, gateway.job(do="commands", nodes=nodes[:8], callers=callers)
            elif what == "durable":
                yield gateway.pid, gateway.job(do="log lines", nodes=nodes[: FULL.nodes // 2])
            else:
                yield gateway.pid, gateway.job(do="rpc", node=nodes[0], in_one_frame=False, callers=callers)


async def record(what: str, callers: int, samples: Path) -> dict[str, Any]:
    """Writes the stacks to `samples`, one a line with its count, and returns what the load generator said."""
    _, of_load = cores()
    async with busy_server(what, callers) as (pid, job), worker("tests.benchmarks.loads.jobs", core=of_load) as load:
        answer: dict[str, Any] = {}

        async def keep_busy() -> None:
            answer.update(await load.ask({**job, "seconds": LOAD_S}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_busy)
            await trio.sleep(SETTLING_S)
            py_spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--format", "raw"]
            options = ["--rate", str(SAMPLES_PER_S), "--duration", f"{RECORDED_S:.0f}", "--output", str(samples)]
            await trio.run_process([*py_spy, *options], capture_stdout=True, capture_stderr=True)
        return answer


def shares(samples: str) -> dict[str, float]:
    """The share of each part, largest first, of all samples of the event loop."""
    counted: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if any(EVENT_LOOP in frame for frame in frames):
            counted[_part(frames)] += int(count)
    total = counted.total()
    return {part: count / total for part, count in counted.most_common()}


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, rule in RULES:
            if rule.search(frame):
                return part
    return OTHER


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profiling", description=__doc__)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--callers", type=int, default=32, help="sockets, callers or subscribers at once")
    parser.add_argument("--raw", type=Path, help="keep the stacks in this file, as flame graphs are made of")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = arguments.raw or Path(folder, "samples")
        answer = trio.run(record, arguments.what, arguments.callers, samples)
        found = shares(samples.read_text())
    table = Table(title=f"{arguments.what}: {answer['cpu_us']:.0f} µs of CPU each, {answer['per_s']:,.0f} per second")
    table.add_column("part of the way")
    table.add_column("share", justify="right")
    table.add_column("µs", justify="right")
    for part, share in found.items():
        table.add_row(part, f"{share:.0%}", f"{share * answer['cpu_us']:.0f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    main()
