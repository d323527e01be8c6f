"""A stop sent while the database was away is recorded by the next gateway, though the one that sent it was killed; and
the last thing an orderly gateway does is to sign the audit of it.
"""

import os
import signal
from pathlib import Path
from uuid import uuid4

import trio

from skygw.app import SPOOL_FOLDER
from skygw.auth.audit_key import KEY_FILE, trust
from skygw.auth.development import load_or_make
from skygw.control.audit import AuditChecker
from skygw.database.audit import open_audit
from skygw.database.embedded import embedded_postgres
from skygw.database.migrate import prepare_development
from skygw.ids import OutboxUid
from skygw.protocol.gateway_frames import Ack, EventCommand, QueryCommand
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from tests.fakes.gateway_process import gateway_process
from tests.gateway.world import PATIENCE_S, AnyWorld, world_of


async def test_a_stop_of_a_gateway_that_was_killed_without_a_database_is_recorded_by_the_next_one(
    tmp_path: Path,
) -> None:
    hub = tmp_path / "hub"
    key = load_or_make(hub)
    async with embedded_postgres(tmp_path / "database") as cluster:
        await prepare_development(cluster.owner_url)
        url = cluster.gateway_url
        outbox_uid = OutboxUid(uuid4())
        async with (
            gateway_process(hub, database_url=url) as process,
            world_of(AnyWorld, process, key, cluster.owner_url) as world,
            world.node(outbox_uid=outbox_uid) as node,
        ):
            site, epoch = world.site, node.epoch
            await cluster.kill()
            stop = {
                "telescopeUid": str(site.telescope_uid),
                "commandId": str(uuid4()),
                "command": {"command_type": "mount.stop"},
            }
            assert (await world.ask("POST", "/internal/commands", stop)).status_code == 202
            assert str((await node.hear(EventCommand)).command_id) == stop["commandId"]
            await spooled(hub, '"written"')
            os.kill(process.pid, signal.SIGKILL)
        await cluster.start()

        async with (
            gateway_process(hub, database_url=url) as process,
            world_of(AnyWorld, process, key, cluster.owner_url) as world,
        ):
            record = (await world.ask("GET", f"/internal/commands/{stop['commandId']}")).json()
            assert (record["state"], record["recordedLate"]) == ("unknown", True)
            assert [step["state"] for step in record["transitions"]] == ["received", "written", "unknown"]
            assert files(hub) == []
            hello = world.a_hello(site.install_id, last_epoch=epoch, outbox_uid=outbox_uid)
            async with world.socket(token=world.node_token(site.install_id), hello=hello) as node:
                await node.greet()
                [asked] = (await node.hear(QueryCommand)).command_ids
                assert str(asked) == stop["commandId"]
                await node.say(PublishCommandResult(seq=1, command_id=asked, status=CommandStatus.COMPLETED))
                await node.hear(Ack)
            record = (await world.ask("GET", f"/internal/commands/{stop['commandId']}")).json()
            assert record["state"] == "completed"
            assert (await world.ask("POST", "/internal/commands", stop)).json()["duplicate"] is True
            assert process.complaints() == []
        assert len(process.logged("draining")) == 1
        with open_audit(url) as audit:
            checker = AuditChecker(audit.registry_uid, trust([hub / KEY_FILE]).verify)
            for item in audit.items():
                checker.take(item)
            checker.end()
        assert (checker.found.steps, checker.found.unsigned) == (4, 0)


def files(hub: Path) -> list[Path]:
    return list((hub / SPOOL_FOLDER).glob("*"))


async def spooled(hub: Path, text: str) -> None:
    """Waits until it stands on the disk."""
    with trio.fail_after(PATIENCE_S):
        while text not in "".join(path.read_text() for path in files(hub)):  # noqa: ASYNC110 - a file has no events
            await trio.sleep(0.02)
