"""One repetition of claims: nodes that claim tasks at the doors, beside rows taken in the same PostgreSQL alone."""

from contextlib import AsyncExitStack
from pathlib import Path

from tests.benchmarks.gateway_figures import our_gateway
from tests.benchmarks.plan import Plan
from tests.benchmarks.processes import worker
from tests.benchmarks.report import OURS, Report
from tests.fleet.fleet import installations, make_known

SEED = 3
SKIP_LOCKED = "PostgreSQL, one UPDATE … SKIP LOCKED each"
TASKS_PER_S = 4_000
"""More than can be taken of one telescope: what is there is made before anything is measured."""


async def repeat(plan: Plan, cores: tuple[int, int], data_dir: Path, report: Report) -> None:
    """Runs the part on a gateway of its own and adds its figures."""
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        subject, gateway = await our_gateway(data_dir, of_server, stack)
        known = installations(SEED, 2 * sum(plan.claimers))
        telescopes = await make_known(gateway, known)
        fresh = iter(zip(known, telescopes, strict=True))
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        for claimers in plan.claimers:
            what = f"claims, {claimers} node{'' if claimers == 1 else 's'}"
            ours, theirs = ([next(fresh) for _ in range(claimers)] for _ in range(2))
            tasks = {"url": gateway.owner_url, "each": max(50, int(TASKS_PER_S * plan.load_s) // claimers)}
            job = {"do": "claims", "nodes": [subject.node(install_id) for install_id, _ in ours], **tasks}
            answer = await load.ask(subject.job(**job, telescopes=[str(uid) for _, uid in ours], seconds=plan.load_s))
            report.add_load(what, OURS, answer)
            job = {"do": "takes", "telescopes": [str(uid) for _, uid in theirs], "seconds": plan.load_s, **tasks}
            alone = await load.ask(job)
            report.add(f"{what}, per second", SKIP_LOCKED, alone["per_s"])
            report.add(f"{what}, p50 ms", SKIP_LOCKED, alone["p50_ms"])
            report.add(f"{what}, p99 ms", SKIP_LOCKED, alone["p99_ms"])
