"""One repetition of the hardware graph: whole, unchanged, and as a difference, beside its rows by plain SQL."""

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import trio

from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from tests.benchmarks.gateway_figures import our_gateway
from tests.benchmarks.plan import Plan
from tests.benchmarks.processes import worker
from tests.benchmarks.report import OURS, Report
from tests.fakes.gateway_process import GatewayProcess

PATH = "/v1/nodes/me/hardware"
POSTGRES_ALONE = "plain SELECT by psycopg"

ROWS = """
    SELECT to_jsonb(device) FROM device JOIN telescope ON telescope.id = device.telescope_id WHERE telescope.uid = %s
    UNION ALL SELECT to_jsonb(telescope) FROM telescope WHERE uid = %s
    UNION ALL SELECT to_jsonb(observatory) FROM observatory WHERE uid = %s
"""
ROW = "SELECT to_jsonb(device) FROM device WHERE uid = %s"
REVISION = """
    SELECT revision FROM skygw.graph_revision JOIN observatory ON observatory.id = observatory_id WHERE uid = %s
"""


async def repeat(plan: Plan, cores: tuple[int, int], data_dir: Path, report: Report) -> None:
    """Runs the part on a gateway of its own and adds its figures."""
    of_server, of_load = cores
    async with AsyncExitStack() as stack:
        subject, gateway = await our_gateway(data_dir, of_server, stack)
        load = await stack.enter_async_context(worker("tests.benchmarks.loads.jobs", core=of_load))
        observatory, telescope, install_id, devices = uuid4(), uuid4(), InstallId(uuid4()), plan.resources - 2
        device_uids = [DeviceUid(uuid4()) for _ in range(devices)]
        shown = NewTelescope(
            TelescopeUid(telescope),
            "telescope",
            devices=tuple(NewDevice(uid, "camera", f"camera {uid}") for uid in device_uids),
            install_id=install_id,
        )
        await provision(gateway.owner_url, [NewObservatory(observatory, "observatory", telescopes=(shown,))])
        _, revision = await _shown(gateway, install_id, plan.resources)
        await trio.to_thread.run_sync(_rename, gateway.owner_url, device_uids[0])

        size = f"graph of {plan.resources} resources"
        ours = {"do": "graph", "seconds": plan.load_s, "path": PATH, "token": gateway.node_token(install_id)}
        plain = {"do": "select", "seconds": plan.load_s, "url": gateway.owner_url}
        whole = [str(telescope), str(telescope), str(observatory)]
        for what, path, query, values in (
            (f"{size}, cold", PATH, ROWS, whole),
            (f"{size}, a difference of one", f"{PATH}?since={revision}", ROW, [str(device_uids[0])]),
        ):
            report.add_load(what, OURS, await load.ask(subject.job(**{**ours, "path": path})))
            report.add_load(what, POSTGRES_ALONE, await load.ask({**plain, "query": query, "values": values}))
        tag, _ = await _shown(gateway, install_id, plan.resources)
        unchanged = f"{size}, unchanged"
        report.add_load(unchanged, OURS, await load.ask(subject.job(**{**ours, "held": tag})))
        report.add_load(
            unchanged, POSTGRES_ALONE, await load.ask({**plain, "query": REVISION, "values": [str(observatory)]})
        )


async def _shown(gateway: GatewayProcess, install_id: InstallId, resources: int) -> tuple[str, int]:
    """The graph's tag and revision."""
    token = {"Authorization": f"Bearer {gateway.node_token(install_id)}"}
    async with httpx.AsyncClient(base_url=gateway.node_url, headers=token, timeout=60, trust_env=False) as node:
        answer = await node.get(PATH)
    found = answer.json()
    if len(found["resources"]) != resources:
        raise RuntimeError(f"{len(found['resources'])} of {resources} resources are shown")
    return answer.headers["etag"], found["revision"]


def _rename(owner_url: str, device_uid: UUID) -> None:
    with psycopg.connect(owner_url) as connection:
        connection.execute("UPDATE device SET name = 'another' WHERE uid = %s", [device_uid])
