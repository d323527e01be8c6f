"""One repetition of what a serving stack costs: echo, short GETs, connects, idle sockets, on four servers in turn."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.benchmarks.plan import MESSAGE_BYTES, PIPELINED, PIPELINED_SOCKETS, Plan
from tests.benchmarks.processes import Worker, resident_kib, worker
from tests.benchmarks.report import OURS, Report

STOCK = "stock Hypercorn + Quart-Trio"
FASTAPI = "FastAPI, uvicorn"
BARE_TRIO = "bare Trio loop"

TRIO_ALONE = "Trio alone"
TRIO_AND_H11 = "Trio and h11"
SERVING_ALONE = "our serving alone"

FASTEST_WS = "websockets-sansio"
"""Of uvicorn's three (docs/performance.md has the figures of all)."""

SERVERS: dict[str, tuple[str, ...]] = {
    OURS: ("tests.benchmarks.servers.skygw_echo",),
    STOCK: ("tests.benchmarks.servers.stock_echo",),
    FASTAPI: ("tests.benchmarks.servers.fastapi_echo", FASTEST_WS),
    BARE_TRIO: ("tests.benchmarks.servers.trio_echo",),
}

FLOORS: dict[str, tuple[str, ...]] = {
    TRIO_ALONE: ("tests.benchmarks.servers.relay", "trio"),
    TRIO_AND_H11: ("tests.benchmarks.servers.relay", "h11"),
    SERVING_ALONE: ("tests.benchmarks.servers.relay", "serving"),
}
"""What HTTP, and a direct request, cost on the parts that ours stands on with nothing done on them."""

WARM_UP_SOCKETS = 10
"""Sockets before the memory is looked at: what is loaded at the first of them is not a socket's."""


@dataclass(frozen=True)
class Server:
    pid: int
    port: int


async def repeat(plan: Plan, parts: set[str], cores: tuple[int, int], report: Report) -> None:
    """Runs the parts on servers of their own and adds their figures. Every load is run on each server in turn."""
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        servers = {name: await _started(program, of_server, stack) for name, program in SERVERS.items()}
        if "memory" in parts:
            await _memory(plan, load, servers, report)
        if "connects" in parts:
            await _connects(plan, load, servers, report)
        if "get" in parts:
            floors = {name: await _started(program, of_server, stack) for name, program in FLOORS.items()}
            # The bare loop of the echo speaks no HTTP but the handshake.
            spoken = {name: server for name, server in servers.items() if name != BARE_TRIO}
            await _gets(plan, load, spoken | floors, report)
        if "echo" in parts:
            await _echo(plan, load, servers, report)


async def _started(program: tuple[str, ...], core: int, stack: AsyncExitStack) -> Server:
    module, *arguments = program
    process = await stack.enter_async_context(worker(module, *arguments, core=core))
    return Server(process.pid, (await process.says())["port"])


async def _memory(plan: Plan, load: Worker, servers: dict[str, Server], report: Report) -> None:
    """First of all, on fresh processes: memory that was used once is seldom given back."""
    for name, server in servers.items():
        job = {"do": "connect", "port": server.port, "server": server.pid, "bytes": MESSAGE_BYTES}
        await load.ask({**job, "sockets": WARM_UP_SOCKETS})
        before = resident_kib(server.pid)
        await load.ask({**job, "sockets": plan.idle_sockets})
        report.add("memory per idle socket, KiB", name, (resident_kib(server.pid) - before) / plan.idle_sockets)
        await load.ask({"do": "release"})


async def _connects(plan: Plan, load: Worker, servers: dict[str, Server], report: Report) -> None:
    for name, server in servers.items():
        job = {"do": "connect", "port": server.port, "server": server.pid, "bytes": MESSAGE_BYTES}
        report.add_load("connects", name, await load.ask({**job, "sockets": plan.connects}))
        await load.ask({"do": "release"})


async def _gets(plan: Plan, load: Worker, servers: dict[str, Server], report: Report) -> None:
    for callers in plan.callers:
        for name, server in servers.items():
            job = {"do": "get", "port": server.port, "server": server.pid, "path": "/hello", "seconds": plan.load_s}
            report.add_load(
                f"short GETs, {_counted(callers, 'connection')}", name, await load.ask({**job, "connections": callers})
            )


async def _echo(plan: Plan, load: Worker, servers: dict[str, Server], report: Report) -> None:
    loads = [(f"echo, {_counted(sockets, 'socket')}", sockets, 1) for sockets in plan.sockets]
    pipelined = min(PIPELINED_SOCKETS, max(plan.sockets))
    loads.append((f"echo, {pipelined} sockets, {PIPELINED} messages at once", pipelined, PIPELINED))
    for what, sockets, at_once in loads:
        for name, server in servers.items():
            job = {"do": "echo", "port": server.port, "server": server.pid, "bytes": MESSAGE_BYTES}
            answer = await load.ask({**job, "sockets": sockets, "at_once": at_once, "seconds": plan.load_s})
            report.add_load(what, name, answer)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
