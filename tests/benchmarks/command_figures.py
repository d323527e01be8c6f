"""One repetition of commands: through the ledger beside what its database could do at most, and stops behind a line
that is full beside the same line without anything else on it.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import trio

from skygw.client.commands import Command, CommandOutcome
from skygw.client.direct import DirectCall
from skygw.client.node import NodeClient, NodeConfig
from skygw.database.pool import POOL_SIZE
from skygw.ids import InstallId, TelescopeUid
from skygw.protocol.node_frames import NodeType
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.line import Line
from skygw.sim.line_profiles import PROFILES
from tests.benchmarks.gateway_figures import our_gateway
from tests.benchmarks.plan import MIB, Plan
from tests.benchmarks.processes import worker
from tests.benchmarks.report import OURS, Report
from tests.fakes.gateway_process import GatewayProcess
from tests.fleet.fleet import installations, make_known

SEED = 2
NODES = 8
"""Among which the callers of the last load take turns: a ledger has one chain for each."""

POSTGRES_ALONE = "PostgreSQL, one row each"
NOTHING_ELSE = "skygw, nothing else on the line"

STOP_WAIT_S = 60.0
UNDER_WAY_BYTES = 256 * 1024
"""So much of the upload has arrived before stops are counted."""

LINES: dict[str, Line | None] = {"over loopback": None, "behind dsl": PROFILES["dsl"]}


async def repeat(plan: Plan, cores: tuple[int, int], data_dir: Path, report: Report) -> None:
    """Runs the part on a gateway of its own and adds its figures."""
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        subject, gateway = await our_gateway(data_dir, of_server, stack)
        known = installations(SEED, len(plan.callers) + NODES + len(LINES))
        telescopes = dict(zip(known, await make_known(gateway, known), strict=True))
        fresh = iter(known)
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        loads = [(callers, 1) for callers in plan.callers] + [(max(plan.callers), NODES)]
        for callers, nodes in loads:
            what = f"commands to their end, {counted(callers, 'caller')}, {counted(nodes, 'node')}"
            job = {"do": "commands", "callers": callers, "nodes": [subject.node(next(fresh)) for _ in range(nodes)]}
            answer = await load.ask(subject.job(**job, seconds=plan.load_s))
            report.add_load(what, OURS, answer)
            for part in ("p50", "p99"):
                figure = f"{what}: from the POST to the node's accepted, {part} ms"
                report.add(figure, OURS, answer[f"accepted_{part}_ms"])
            alone = {
                "do": "commits",
                "url": gateway.owner_url,
                "connections": min(callers, POOL_SIZE),
                "seconds": plan.load_s,
            }
            alone_answer = await load.ask(alone)
            report.add(f"{what}, per second", POSTGRES_ALONE, alone_answer["per_s"])
            report.add(f"{what}, p50 ms", POSTGRES_ALONE, alone_answer["p50_ms"])
            report.add(f"{what}, p99 ms", POSTGRES_ALONE, alone_answer["p99_ms"])
        for name, line in LINES.items():
            install_id = next(fresh)
            state = data_dir.with_name(f"node-{uuid4()}")
            async with StoppedSite.open(gateway, install_id, telescopes[install_id], state, line) as site:
                await _stops(plan, name, site, report)


def counted(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"


async def _stops(plan: Plan, name: str, site: "StoppedSite", report: Report) -> None:
    quiet = [await site.stop() for _ in range(plan.stops)]
    async with site.sending(plan.upload_bytes):
        loaded = [await site.stop() for _ in range(plan.stops)]
    for number, what in enumerate(("at the node", "proven to its caller")):
        figure = f"stop {name} {what} while {plan.upload_bytes / MIB:g} MiB come up"
        for subject, taken in ((OURS, loaded), (NOTHING_ELSE, quiet)):
            cuts = quantiles([times[number] for times in taken], n=100, method="inclusive")
            report.add(f"{figure}, p50 ms", subject, cuts[49] * 1_000)
            report.add(f"{figure}, p99 ms", subject, cuts[98] * 1_000)


class StoppedSite:
    """A node that stops at once, and sends what it is asked for as fast as it is taken."""

    def __init__(self, install_id: InstallId, telescope_uid: TelescopeUid, caller: httpx.AsyncClient) -> None:
        self._install_id = install_id
        self._telescope_uid = telescope_uid
        self._caller = caller
        self._stopped_at: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, gateway: GatewayProcess, install_id: InstallId, telescope_uid: TelescopeUid, state: Path, line: Line | None
    ) -> AsyncIterator["StoppedSite"]:
        token = {"Authorization": f"Bearer {gateway.service_token('benchmark')}"}
        async with (
            httpx.AsyncClient(base_url=gateway.internal_url, headers=token, timeout=600, trust_env=False) as caller,
            trio.open_nursery() as nursery,
        ):
            site = cls(install_id, telescope_uid, caller)
            url = gateway.socket_url
            if line is not None:
                proxy = FaultProxy("127.0.0.1", urlsplit(url).port or 0, line=line)
                port: int = await nursery.start(proxy.run)
                url = urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()

            async def node_token() -> str:
                return gateway.node_token(install_id)

            client = NodeClient(
                NodeConfig(
                    url=url,
                    install_id=install_id,
                    node_type=NodeType.TELESCOPE,
                    software_version="1.0",
                    token=node_token,
                    state_dir=state,
                )
            )
            client.operation("asset.read", effects="transfer")(site._send)
            client.command_handler(site._stop)
            await nursery.start(client.run)
            await client.wait_connected()
            yield site
            nursery.cancel_scope.cancel()

    async def stop(self) -> tuple[float, float]:
        """Seconds from the request to the node's handler, and to the proof."""
        command_id = str(uuid4())
        order = {
            "telescopeUid": str(self._telescope_uid),
            "commandId": command_id,
            "command": {"command_type": "mount.stop"},
            "waitS": STOP_WAIT_S,
        }
        began = trio.current_time()
        answer = await self._caller.post("/internal/commands", json=order)
        proven_s = trio.current_time() - began
        if answer.json().get("outcome") != "succeeded":
            raise RuntimeError(f"the stop did not succeed: {answer.text}")
        return self._stopped_at[command_id] - began, proven_s

    @asynccontextmanager
    async def sending(self, size: int) -> AsyncIterator[None]:
        """In the block the node sends so many bytes in one response, and again when they have all come."""
        coming = trio.Event()

        async def read() -> None:
            body = {"operation": "asset.read", "params": {"size": size}, "timeoutS": 600}
            path = f"/internal/nodes/{self._install_id}/direct"
            while True:
                came = 0
                async with self._caller.stream("POST", path, json=body) as answer:
                    async for piece in answer.aiter_raw():
                        came += len(piece)
                        if came >= min(UNDER_WAY_BYTES, size):
                            coming.set()
                if came != size:
                    raise RuntimeError(f"{came} of {size} bytes came")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await coming.wait()
            yield
            nursery.cancel_scope.cancel()

    async def _stop(self, command: Command) -> CommandOutcome:
        self._stopped_at[str(command.id)] = trio.current_time()
        return CommandOutcome.completed(proof={"devices": []})

    async def _send(self, call: DirectCall) -> None:
        size = call.params.value["size"]
        await call.start("application/octet-stream", total_size=size)
        left = size
        while left:
            piece = bytes(min(left, 64 * 1024))
            await call.send(piece)
            left -= len(piece)
