"""Runs the demonstration from an empty folder to a drained gateway, step by step, and tells how each step went."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import trio

from skygw.demo import control_steps, hardware_steps, line_steps, stream_steps, trouble_steps
from skygw.demo.records import provision_sites
from skygw.demo.stage import Gateway, Stage, StepFailed, expect, start_gateway, until
from skygw.errors import GatewayError, StartupError
from skygw.protocol.close_codes import CloseCode
from skygw.settings import Settings
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.fleet import Fleet, draw_nodes, open_fleet
from skygw.sim.node import SimulatedNode
from skygw.sim.scenarios import Scenario
from skygw.sim.seeds import chance_of

STEP_S = 30.0
"""The longest a step may take before it has failed; starting a database cold is the slowest."""

START_S = 60.0
CONNECTS_PER_S = 50.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to show. `directory` takes everything; `time_scale` is simulated seconds per real one."""

    directory: Path
    nodes: int = 6
    seed: str = "demo"
    time_scale: float = 20.0


@dataclass(frozen=True)
class StepResult:
    """How one step went. `said` is what was seen, or what went wrong."""

    title: str
    ok: bool
    took_s: float
    said: str


class Audience(Protocol):
    """Whoever watches."""

    def begins(self, title: str) -> None: ...
    def ended(self, result: StepResult) -> None: ...


STEPS: tuple[tuple[str, Callable[[Stage], Awaitable[str]]], ...] = (
    ("A mount unparks, slews and tracks, with proof", hardware_steps.track),
    ("A camera takes a frame of real sky", hardware_steps.expose),
    ("The frame comes through the gateway, byte for byte", hardware_steps.fetch_frame),
    ("A slew is aborted half-way, with proof", control_steps.abort),
    ("Another service moves nothing, and is told who has control", control_steps.another_service),
    ("A caller hangs up, and the node hears of it", trouble_steps.hang_up),
    ("A call to a silent node ends at its deadline", trouble_steps.silent_node),
    ("A command sent again acts once", trouble_steps.say_it_twice),
    ("A subscriber is cut off and misses nothing", stream_steps.subscriber_resumes),
    ("A device that falls silent is called stale", stream_steps.silence_is_noticed),
    ("A slew is stopped while PostgreSQL is dead", trouble_steps.stop_without_database),
    ("A second machine does not get the telescope", trouble_steps.second_machine),
    ("A command that was held too long is not run", line_steps.late_frame),
    ("A command whose lease ran out on the way is not run", line_steps.control_that_ran_out),
    ("A command whose answer was lost is unknown until the node tells", line_steps.lost_answer),
)
"""What is shown between the beginning and the drain, in this order."""

Keep = Callable[[Gateway], Awaitable[None]]
"""Waits until the gateway should end."""


class _PrerequisiteFailed(Exception):
    """Nothing more can be shown."""


async def demonstrate(plan: Plan, audience: Audience, *, keep: Keep | None = None) -> list[StepResult]:
    """Show everything; the result of each step. With `keep` the gateway drains only when that returns.

    Cancelling ends everything without a drain.
    """
    show = _Show(plan, audience)
    try:
        async with trio.open_nursery() as nursery:
            await show.run(nursery, keep)
            nursery.cancel_scope.cancel()
    except* _PrerequisiteFailed:
        pass  # the step's own result says why
    return show.results


class _Show:
    def __init__(self, plan: Plan, audience: Audience) -> None:
        self._plan = plan
        self._audience = audience
        self.results: list[StepResult] = []

    async def run(self, nursery: trio.Nursery, keep: Keep | None) -> None:
        started: list[Gateway] = []
        await self._step(
            "The gateway starts on its own PostgreSQL",
            partial(self._start, started, nursery),
            needed=True,
            within_s=START_S,
        )
        gateway = started[0]
        with ExitStack() as opened:
            async with gateway.caller:
                stage, fleet = await self._open_sites(gateway, nursery, opened)
                async with trio.open_nursery() as in_control:
                    stage = await self._take_control(stage, in_control)
                    for title, step in STEPS:
                        await self._step(title, partial(step, stage))
                    in_control.cancel_scope.cancel()
                if keep is not None:
                    await keep(gateway)
                await self._step("The gateway drains in time", partial(_drain, gateway, fleet))

    async def _start(self, started: list[Gateway], nursery: trio.Nursery) -> str:
        settings = Settings(node_port=0, internal_port=0, data_dir=self._plan.directory)
        gateway = await start_gateway(settings, nursery)
        started.append(gateway)
        async with httpx.AsyncClient(base_url=gateway.running.internal_url, trust_env=False) as client:
            answer = await client.get("/readyz")
        expect(answer.status_code == 200, f"/readyz answers {answer.status_code}: {answer.text[:200]}")
        return f"ready: nodes at {gateway.running.node_url}, callers at {gateway.running.internal_url}"

    async def _open_sites(self, gateway: Gateway, nursery: trio.Nursery, opened: ExitStack) -> tuple[Stage, Fleet]:
        """The first site is connected through the stalling proxy, all others directly."""
        found: list[tuple[Stage, Fleet]] = []

        async def connect() -> str:
            plan = self._plan
            parts = urlsplit(gateway.running.node_url)
            proxy = FaultProxy(parts.hostname or "", parts.port or 80)
            port: int = await nursery.start(proxy.run)
            blueprints = draw_nodes(plan.seed, plan.nodes, telescopes_per_site=2)
            expect(len(blueprints) > 1, "the demonstration needs two sites: ask for more nodes")
            await provision_sites(gateway.owner_url(), blueprints)
            fleets = [
                opened.enter_context(
                    open_fleet(
                        some,
                        directory=plan.directory / "simulated",
                        habits=habits,
                        time_scale=plan.time_scale,
                        journal_directory=plan.directory / "journals",
                        connects_per_s=CONNECTS_PER_S,
                    )
                )
                for some, habits in ((blueprints[:1], gateway.habits(port=port)), (blueprints[1:], gateway.habits()))
            ]
            for fleet in fleets:
                nursery.start_soon(fleet.run, Scenario.CALM, chance_of(plan.seed, "scenario"))
            for fleet in fleets:
                await fleet.wait_connected()
            page = await gateway.caller.nodes(size=500)
            known = {node["uid"] for node in page["items"] if node["connected"]}
            missing = {str(node.install_id) for fleet in fleets for node in fleet.nodes} - known
            expect(not missing, f"the gateway does not know that these are connected: {sorted(missing)}")
            stalling, plain = fleets
            stage = Stage(gateway, plain.stations[0], stalling.stations[0], proxy, plan.directory)
            found.append((stage, plain))
            return f"{len(stalling.nodes) + len(plain.nodes)} installations of {len(blueprints)} sites are connected"

        await self._step("Simulated installations connect", connect, needed=True)
        return found[0]

    async def _take_control(self, stage: Stage, nursery: trio.Nursery) -> Stage:
        """Control lasts until the nursery is cancelled."""
        found = [stage]

        async def take() -> str:
            found[0], said = await control_steps.take_control(stage, nursery)
            return said

        await self._step("A service takes control of a telescope", take)
        return found[0]

    async def _step(
        self, title: str, work: Callable[[], Awaitable[str]], *, needed: bool = False, within_s: float = STEP_S
    ) -> None:
        self._audience.begins(title)
        began = trio.current_time()
        ok = False
        try:
            with trio.fail_after(within_s):
                said = await work()
            ok = True
        except trio.TooSlowError:
            said = f"not done after {within_s:.0f} s"
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong is this step's failure, and is said
            said = _sentence(problem)
        result = StepResult(title, ok, trio.current_time() - began, said)
        self.results.append(result)
        self._audience.ended(result)
        if needed and not ok:
            raise _PrerequisiteFailed


def _sentence(problem: Exception) -> str:
    """What went wrong, out of whatever nurseries wrapped it."""
    if isinstance(problem, ExceptionGroup):
        return "; ".join(dict.fromkeys(_sentence(inner) for inner in problem.exceptions))
    if isinstance(problem, StepFailed | GatewayError | StartupError):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"


async def _drain(gateway: Gateway, fleet: Fleet) -> str:
    """Asked to drain, it says goodbye to every node and ends."""
    codes: list[int | None] = []

    async def watch(node: SimulatedNode) -> None:
        before = node.client.last_end
        await until(lambda: node.client.last_end is not before)
        codes.append(None if node.client.last_end is None else node.client.last_end.code)

    async with trio.open_nursery() as nursery:
        for node in fleet.nodes:
            nursery.start_soon(watch, node)
        began = trio.current_time()
        gateway.running.start_drain()
        await gateway.ended.wait()
        took_s = trio.current_time() - began
    expect(took_s <= gateway.settings.drain_s, f"it took {took_s:.1f} s, {gateway.settings.drain_s:.0f} s are allowed")
    expect(set(codes) == {CloseCode.DRAINING}, f"the nodes saw the close codes {codes}")
    return f"ended after {took_s:.2f} s; {len(codes)} nodes were told to come back ({int(CloseCode.DRAINING)})"
