"""A caller whose picture of the hardware is old is told so at the door, and the id it drew is still its own."""

from pathlib import Path
from uuid import uuid4

from skygw.protocol.gateway_frames import EventCommand
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import gateway


async def test_a_revision_that_is_not_the_nodes_is_refused_until_it_is(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node(graph_revision=118) as node:
        wanted = {
            "deviceUid": str(world.site.mount_uid),
            "commandId": str(uuid4()),
            "command": {"command_type": "mount.park"},
            "graphRevision": 117,
            "leaseUid": await world.control(),
        }
        refused = await world.ask("POST", "/internal/commands", wanted)
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["retry"]) == (409, "configuration_changed", "never")
        assert (problem["outcome"], problem["details"]) == ("not_sent", {"graphRevision": 118})
        assert "retry-after" not in refused.headers
        taken = await world.ask("POST", "/internal/commands", {**wanted, "graphRevision": 118})
        assert (taken.status_code, taken.json()["duplicate"]) == (202, False)
        assert (await node.hear(EventCommand)).graph_revision == 118
