"""A hub whose database was restored from an older backup takes its whole fleet back, and is taken back by it."""

import shutil
from pathlib import Path

import pytest
import trio

from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fakes.scripted_node import ScriptedNode, answer
from tests.fleet.callers import Ask, Service
from tests.fleet.fleet import FLEET, LOOPBACK_LIMITS, connected, installations, make_known

pytestmark = pytest.mark.timeout(300)  # three starts, and three times the whole fleet


async def test_a_fleet_is_welcomed_with_higher_epochs_by_a_database_that_has_forgotten_them(tmp_path: Path) -> None:
    data_dir, backup = tmp_path / "hub", tmp_path / "backup"
    install_ids = installations(seed=4)
    nodes = [ScriptedNode(install_id, answer) for install_id in install_ids]

    async with gateway_process(data_dir, **LOOPBACK_LIMITS) as gateway:
        await make_known(gateway, install_ids)
    await trio.to_thread.run_sync(lambda: shutil.copytree(data_dir, backup, symlinks=True))

    async with gateway_process(data_dir, **LOOPBACK_LIMITS) as gateway:
        async with connected(gateway, nodes):
            pass
        async with connected(gateway, nodes):
            epoch_before = await epoch_of(gateway, nodes[0])
    epochs_before = [max(node.epochs) for node in nodes]

    async with gateway_process(backup, **LOOPBACK_LIMITS) as gateway, connected(gateway, nodes):
        epoch_after = await epoch_of(gateway, nodes[0])
        told = await Service(gateway).call_all([Ask(each, nonce=f"after-{each}", size=100) for each in install_ids])

    assert epochs_before == [2] * FLEET
    assert [node.epochs for node in nodes] == [[1, 2, 3]] * FLEET
    assert (epoch_before, epoch_after) == (2, 3)
    assert {each.outcome for each in told} == {"succeeded"}
    assert gateway.complaints() == []


async def epoch_of(gateway: GatewayProcess, node: ScriptedNode) -> int:
    view = await Service(gateway).get(f"/internal/nodes/{node.install_id}")
    epoch: int = view["epoch"]
    return epoch
