"""One repetition of the gateway's own work, beside a straightforward FastAPI gateway: nodes, requests, frames."""

from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skygw.ids import InstallId
from tests.benchmarks import fastapi_gateway
from tests.benchmarks.echo_figures import FLOORS, SERVING_ALONE, TRIO_AND_H11, WARM_UP_SOCKETS
from tests.benchmarks.fastapi_gateway import PLAIN, SAME_DUTIES
from tests.benchmarks.plan import Plan
from tests.benchmarks.processes import Worker, resident_kib, worker
from tests.benchmarks.report import OURS, Report
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fleet.fleet import LOOPBACK_LIMITS, installations, make_known

SEED = 1
NODES_SENT_TO = 10

NO_RATES = {"node_frames_per_s": 1_000_000, "node_bytes_per_s": 1_073_741_824}
"""What one installation may send is weighed here as everywhere, and is never too much."""

FASTAPI = "FastAPI gateway"
FASTAPI_SAME_DUTIES = "FastAPI gateway, same duties"


@dataclass(frozen=True)
class Subject:
    """A gateway that runs. `in_one_frame`: how its nodes answer a direct request."""

    name: str
    pid: int
    port: int
    http_port: int
    tokens: GatewayProcess | None
    in_one_frame: bool

    def node(self, install_id: InstallId) -> tuple[str, str]:
        token = fastapi_gateway.SECRET if self.tokens is None else self.tokens.node_token(install_id)
        return str(install_id), token

    def job(self, **more: Any) -> dict[str, Any]:
        token = fastapi_gateway.SECRET if self.tokens is None else self.tokens.service_token("benchmark")
        return {"port": self.port, "http_port": self.http_port, "server": self.pid, "token": token, **more}


@dataclass
class Fleet:
    """Installations the gateway knows; each is used once, so that each is new to it."""

    fresh: Iterator[InstallId] = field(repr=False)

    def take(self, count: int) -> list[InstallId]:
        return [next(self.fresh) for _ in range(count)]


async def our_gateway(data_dir: Path, core: int, stack: AsyncExitStack) -> tuple[Subject, GatewayProcess]:
    """Ours, with limits that no load here comes near. It runs until `stack` is left."""
    gateway = await stack.enter_async_context(gateway_process(data_dir, core, **LOOPBACK_LIMITS, **NO_RATES))
    ports = _port(gateway.node_url), _port(gateway.internal_url)
    return Subject(OURS, gateway.pid, *ports, gateway, in_one_frame=False), gateway


async def repeat(plan: Plan, parts: set[str], cores: tuple[int, int], data_dir: Path, report: Report) -> None:
    """Runs the parts on gateways of their own and adds their figures. Every load is run on each gateway in turn."""
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        ours, gateway = await our_gateway(data_dir, of_server, stack)
        known = installations(SEED, _needed(plan))
        await make_known(gateway, known)
        fleet = Fleet(iter(known))
        subjects = [ours]
        for name, work in ((FASTAPI, PLAIN), (FASTAPI_SAME_DUTIES, SAME_DUTIES)):
            process = await stack.enter_async_context(
                worker("tests.benchmarks.fastapi_gateway", work, str(data_dir), core=of_server)
            )
            port = (await process.says())["port"]
            tokens = None if work == PLAIN else ours.tokens
            subjects.append(Subject(name, process.pid, port, port, tokens, in_one_frame=work == PLAIN))
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        if "memory" in parts:
            await _memory(plan, load, subjects, fleet, report)
        if "connects" in parts:
            await _connects(plan, load, subjects, fleet, report)
        if "rpc" in parts:
            floors = [await _floor(name, program, of_server, stack) for name, program in FLOORS.items()]
            await _round_trips(plan, load, [*subjects, *floors], fleet, report)
        if "out" in parts:
            source = await stack.enter_async_context(
                worker("tests.benchmarks.servers.session_source", str(NODES_SENT_TO), core=of_server)
            )
            await _out(plan, load, source, fleet, report)


async def _floor(name: str, program: tuple[str, ...], core: int, stack: AsyncExitStack) -> Subject:
    module, *arguments = program
    process = await stack.enter_async_context(worker(module, *arguments, core=core))
    port = (await process.says())["port"]
    return Subject(name, process.pid, port, port, None, in_one_frame=True)


def _needed(plan: Plan) -> int:
    subjects = 3 + len(FLOORS)
    return subjects * (WARM_UP_SOCKETS + plan.idle_sockets + plan.connects + len(plan.callers) + NODES_SENT_TO)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _nodes(subject: Subject, install_ids: Iterable[InstallId]) -> list[tuple[str, str]]:
    return [subject.node(install_id) for install_id in install_ids]


async def _memory(plan: Plan, load: Worker, subjects: list[Subject], fleet: Fleet, report: Report) -> None:
    """First of all, on fresh processes: memory that was used once is seldom given back."""
    for subject in subjects:
        await load.ask(subject.job(do="connect", nodes=_nodes(subject, fleet.take(WARM_UP_SOCKETS))))
        before = resident_kib(subject.pid)
        await load.ask(subject.job(do="connect", nodes=_nodes(subject, fleet.take(plan.idle_sockets))))
        grown = resident_kib(subject.pid) - before
        report.add("memory per idle node, KiB", subject.name, grown / plan.idle_sockets)
        await load.ask({"do": "release"})


async def _connects(plan: Plan, load: Worker, subjects: list[Subject], fleet: Fleet, report: Report) -> None:
    for subject in subjects:
        nodes = _nodes(subject, fleet.take(plan.connects))
        report.add_load("nodes welcomed", subject.name, await load.ask(subject.job(do="connect", nodes=nodes)))
        await load.ask({"do": "release"})


async def _round_trips(plan: Plan, load: Worker, subjects: list[Subject], fleet: Fleet, report: Report) -> None:
    for callers in plan.callers:
        what = f"direct requests, {callers} caller{'' if callers == 1 else 's'}"
        for subject in subjects:
            (node,) = _nodes(subject, fleet.take(1))
            job = subject.job(do="rpc", node=node, in_one_frame=subject.in_one_frame, callers=callers)
            report.add_load(what, subject.name, await load.ask({**job, "seconds": plan.load_s}))
        _add_least(what, report)


def _add_least(what: str, report: Report) -> None:
    """What a request would cost if our serving cost nothing beyond Trio and h11: no gateway that does what ours does
    can cost less on these parts, and the ratio to FastAPI is the best that they allow.
    """
    took = {name: values[-1] for name, values in report.values[f"{what}, server CPU µs each"].items()}
    duties = took[OURS] - took[SERVING_ALONE]
    figure = f"{what}, server CPU µs each if serving were free"
    report.add(figure, OURS, duties + took[TRIO_AND_H11])
    report.add(figure, FASTAPI, took[FASTAPI])


async def _out(plan: Plan, load: Worker, source: Worker, fleet: Fleet, report: Report) -> None:
    """What is written to nodes, without doors and calls: only a part of what others do, and so without a ratio."""
    port = (await source.says())["port"]
    nodes = [(str(install_id), "") for install_id in fleet.take(NODES_SENT_TO)]
    answer = await load.ask({"do": "puts", "port": port, "server": source.pid, "nodes": nodes, "seconds": plan.load_s})
    report.add_load(f"requests put and written to {NODES_SENT_TO} node sessions", OURS, answer)
