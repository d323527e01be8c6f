"""One repetition of telemetry: snapshots and log lines in, values and events out, beside a straightforward FastAPI
gateway that does the same job on the same database.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

from skygw.database.provision import NewDevice
from skygw.ids import DeviceUid, InstallId
from tests.benchmarks.fastapi_gateway import PLAIN
from tests.benchmarks.gateway_figures import FASTAPI, SEED, Subject, our_gateway
from tests.benchmarks.loads.nodes import devices_of
from tests.benchmarks.plan import Plan
from tests.benchmarks.processes import Worker, resident_kib, worker
from tests.benchmarks.report import Report
from tests.fakes.gateway_process import GatewayProcess
from tests.fleet.fleet import installations, make_known

SUBSCRIPTIONS_PER_SOCKET = 100
TIMED_PER_S = 500
"""Snapshots a second while latency is measured: either gateway has time to spare."""

MOMENT_S = 0.1


async def publishing_nodes(gateway: GatewayProcess, count: int) -> list[InstallId]:
    """Installations that the hub knows, with their devices."""
    known = installations(SEED, count)
    await make_known(
        gateway,
        known,
        devices=lambda install_id: [
            NewDevice(DeviceUid(UUID(uid)), device_type, device_type)
            for uid, device_type in devices_of(str(install_id))
        ],
    )
    return known


async def repeat(plan: Plan, parts: set[str], cores: tuple[int, int], data_dir: Path, report: Report) -> None:
    """Runs the parts on gateways of their own and adds their figures. Every load is run on each gateway in turn; both
    write to one PostgreSQL, which runs on their core.
    """
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        ours, gateway = await our_gateway(data_dir, of_server, stack)
        known = await publishing_nodes(gateway, plan.nodes)
        process = await stack.enter_async_context(
            worker("tests.benchmarks.fastapi_gateway", PLAIN, gateway.owner_url, core=of_server)
        )
        port = (await process.says())["port"]
        theirs = Subject(FASTAPI, process.pid, port, port, None, in_one_frame=True)
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        run = _Run(plan, load, [ours, theirs], known, report)
        if "subscriptions" in parts:
            await run.subscriptions()
        if "snapshots" in parts:
            await run.snapshots()
        if "deliveries" in parts:
            await run.deliveries()
        if "latency" in parts:
            await run.latency()
        if "durable" in parts:
            await run.durable()
        if "resume" in parts:
            await run.resume()


class _Run:
    """The figures, each of every subject."""

    def __init__(
        self, plan: Plan, load: Worker, subjects: list[Subject], known: list[InstallId], report: Report
    ) -> None:
        self._plan = plan
        self._load = load
        self._subjects = subjects
        self._known = known
        self._report = report

    def _nodes(self, subject: Subject, one_in: int = 1) -> list[tuple[str, str]]:
        return [subject.node(install_id) for install_id in self._known[: max(1, len(self._known) // one_in)]]

    async def subscriptions(self) -> None:
        """First of all, on fresh processes: memory that was used once is seldom given back."""
        for subject in self._subjects:
            nodes = self._nodes(subject)
            await self._load.ask(subject.job(do="snapshots", nodes=nodes, seconds=MOMENT_S, in_arrays=True))
            for kind, stream in (("retained", "device_snapshot"), ("logged", "telescope_log")):
                await self._subscribe(subject, stream)  # these take the memory that was used before
                grown = await self._subscribe(subject, stream)
                figure = f"memory per {kind} subscription, KiB"
                self._report.add(figure, subject.name, grown / self._plan.idle_subscriptions)
            await self._load.ask({"do": "release"})

    async def _subscribe(self, subject: Subject, stream: str) -> float:
        """What the memory grows by, without the sockets' own."""
        each = min(SUBSCRIPTIONS_PER_SOCKET, self._plan.idle_subscriptions)
        sockets = self._plan.idle_subscriptions // each
        await self._load.ask(subject.job(do="listen", sockets=sockets))
        before = resident_kib(subject.pid)
        install_ids = [str(install_id) for install_id in self._known]
        job = {"do": "subscribe", "sockets": sockets, "stream": stream, "each": each}
        await self._load.ask({**job, "install_ids": install_ids})
        return resident_kib(subject.pid) - before

    async def snapshots(self) -> None:
        for how, in_arrays in (("single", False), ("in arrays of 11", True)):
            for subject in self._subjects:
                job = subject.job(do="snapshots", nodes=self._nodes(subject), in_arrays=in_arrays)
                answer = await self._load.ask({**job, "seconds": self._plan.load_s})
                self._report.add_load(f"snapshots in from {self._plan.nodes} nodes, {how}", subject.name, answer)

    async def deliveries(self) -> None:
        for subscribers in self._plan.subscribers:
            for subject in self._subjects:
                job = subject.job(do="deliveries", nodes=self._nodes(subject, one_in=10), subscribers=subscribers)
                answer = await self._load.ask({**job, "seconds": self._plan.load_s})
                self._report.add_load(f"deliveries to {subscribers} subscribers", subject.name, answer)

    async def latency(self) -> None:
        subscribers = min(self._plan.subscribers)
        what = f"node to {subscribers} subscribers at {TIMED_PER_S} snapshots a second"
        for subject in self._subjects:
            job = subject.job(do="latency", nodes=self._nodes(subject, one_in=10), subscribers=subscribers)
            answer = await self._load.ask({**job, "rate": TIMED_PER_S, "seconds": 2 * self._plan.load_s})
            for unit, key in (("p50 ms", "p50_ms"), ("p99 ms", "p99_ms"), ("server CPU µs each", "cpu_us")):
                self._report.add(f"{what}, {unit}", subject.name, answer[key])

    async def durable(self) -> None:
        for one_in in (self._plan.nodes, 2):
            for subject in self._subjects:
                nodes = self._nodes(subject, one_in)
                answer = await self._load.ask(subject.job(do="log lines", nodes=nodes, seconds=self._plan.load_s))
                what = f"log lines acked to {len(nodes)} node{'' if len(nodes) == 1 else 's'}"
                self._report.add_load(what, subject.name, answer)

    async def resume(self) -> None:
        what = f"resume of {self._plan.missed_events:,} events"
        for subject in self._subjects:
            nodes = self._nodes(subject, one_in=2)
            answer = await self._load.ask(subject.job(do="resume", nodes=nodes, events=self._plan.missed_events))
            self._report.add(f"{what}, seconds", subject.name, answer["seconds"])
            self._report.add(f"{what}, server CPU µs each", subject.name, answer["cpu_us"])
