"""The node socket from handshake to goodbye: who is let in, who takes over, who is cut."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.database.provision import revoke
from skygw.ids import InstanceUid
from skygw.protocol.gateway_frames import DirectRequest, EventToken, Goaway, TokenState
from skygw.protocol.node_frames import AuthRefresh, Error, Ping, Pong
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import Site, bearer, gateway


async def test_a_handshake_is_refused_with_the_status_and_members_of_the_contract(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        stranger, revoked = uuid4(), Site()
        await revoked.provision(world.owner_url)
        await revoke(world.owner_url, revoked.install_id)
        refusals: tuple[tuple[dict[str, Any], int, str], ...] = (
            ({"headers": []}, 401, "unauthenticated"),
            ({"headers": bearer("no.such.token")}, 401, "unauthenticated"),
            ({"headers": bearer("x" * 9_000)}, 401, "unauthenticated"),
            ({"headers": bearer(world.service_token())}, 401, "unauthenticated"),
            ({"headers": bearer(world.node_token(scope="other"))}, 403, "forbidden"),
            ({"headers": bearer(world.node_token(stranger))}, 403, "forbidden"),
            ({"headers": bearer(world.node_token(revoked.install_id))}, 403, "forbidden"),
            ({"path": "/v1/ws/other"}, 404, "not_found"),
            ({"port": world.internal_port}, 404, "not_found"),
            ({"subprotocols": ["skynet.node.v0"]}, 426, "invalid"),
            ({"subprotocols": []}, 426, "invalid"),
        )
        for changed, status, code in refusals:
            rejected = await world.rejection(**changed)
            problem = rejected.problem
            assert (rejected.status, problem["code"], problem["outcome"]) == (status, code, "not_sent"), changed
            assert rejected.headers["content-type"] == "application/json"
            assert isinstance(problem["detail"], str)
        view = (await world.ask("GET", f"/internal/nodes/{revoked.install_id}")).json()
        refusal = view["lastRefusal"]
        assert (refusal["code"], refusal["reason"], refusal["address"]) == (403, "forbidden", "127.0.0.1")
        assert refusal["at"]
        assert await bystander.is_served()


async def test_a_plain_request_for_the_socket_is_told_to_upgrade(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        answer = await world.ask("GET", f"{world.running.node_url}/v1/ws/node")
        assert answer.status_code == 426
        assert answer.headers["upgrade"] == "websocket"
        assert answer.json()["code"] == "invalid"


async def test_a_gateway_whose_database_is_away_refuses_the_handshake_with_503(tmp_path: Path) -> None:
    async with gateway(None, tmp_path) as world:
        assert world.running.cluster is not None
        await world.running.cluster.kill()
        rejected = await world.rejection()
        assert rejected.status == 503
        assert (rejected.problem["code"], rejected.problem["retry"]) == ("routing_unavailable", "after")
        assert int(rejected.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"binary", 4500),
        ("no json", 4500),
        ('{"kind":"ping"}', 4500),
        ('{"kind":"hello"}', 4500),
        ("[]", 4500),
        ("x" * 70_000, 4500),
    ],
    ids=["binary", "no JSON", "another frame", "an empty hello", "an empty array", "oversize"],
)
async def test_a_socket_that_does_not_begin_with_hello_is_closed(
    first: str | bytes, code: int, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.socket() as node:
        await node.say(first)
        assert (await node.closed())[0] == code
        assert (await world.node_view())["lastRefusal"]["code"] == code


async def test_a_socket_that_says_nothing_is_closed(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path, hello_timeout_s=0.2) as world, world.socket() as node:
        code, reason = await node.closed()
        assert code == 4500
        assert "hello" in reason


async def test_hello_must_be_of_the_tokens_installation_and_type(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        for hello in (world.a_hello(uuid4()), world.a_hello(node_type="observatory")):
            async with world.socket(hello=hello) as node:
                await node.say(node.hello)
                assert (await node.closed())[0] == 4504


async def test_a_welcome_says_what_a_node_must_know(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        assert node.welcome is not None
        assert node.welcome.epoch >= 1
        assert node.welcome.acked_seq == 0
        assert node.welcome.limits.text_bytes == 65_536
        assert node.socket.subprotocol == "skynet.node.v1"
        view = await world.node_view()
        assert view["connected"] is True
        assert view["epoch"] == node.epoch
        assert view["bootId"] == str(node.hello.boot_id)
        assert view["address"] == "127.0.0.1"
        assert isinstance(view["id"], int)
        by_key = await world.ask("GET", f"/internal/nodes/{view['id']}")
        assert by_key.json()["uid"] == view["uid"]


async def test_another_machine_is_refused_while_the_first_is_alive(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as first:
        clone = InstanceUid(uuid4())
        async with world.socket(hello=world.a_hello(instance_uid=clone)) as second:
            await second.say(second.hello)
            code, reason = await second.closed()
            assert code == 4505
            assert "duplicate_instance" in reason
        await first.say(Ping(id="alive"))
        assert (await first.hear(Pong)).id == "alive"
        view = await world.node_view()
        assert view["lastRefusal"]["code"] == 4505
        assert view["epoch"] == first.epoch


async def test_an_administrator_transfers_an_installation_to_another_machine(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as first:
        other = InstanceUid(uuid4())
        path = f"/internal/nodes/{world.site.install_id}/transfer"
        answer = await world.ask("POST", path, {"instanceUid": str(other)})
        assert answer.status_code == 204
        assert (await first.closed())[0] == 4501
        async with world.node(instance_uid=other) as second:
            assert second.epoch > first.epoch


async def test_the_newest_connection_of_a_machine_wins_and_the_old_goodbye_changes_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as old, world.node() as new:
        assert new.epoch == old.epoch + 1
        assert (await old.closed())[0] == 4501
        async with trio.open_nursery() as nursery:
            nursery.start_soon(new.serve_echoes)
            assert (await world.direct(params={"to": "new"})).json() == {"to": "new"}
            nursery.cancel_scope.cancel()
        view = await world.node_view()
        assert (view["connected"], view["epoch"]) == (True, new.epoch)
        assert view["lastClose"]["code"] == 4501


async def test_calls_of_a_superseded_socket_are_answered(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as old, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await old.hear(DirectRequest)
            async with world.node():
                await trio.sleep_forever()

        nursery.start_soon(come_back)
        answer = await world.direct()
        assert (answer.json()["code"], answer.json()["outcome"]) == ("link_lost", "unknown")
        nursery.cancel_scope.cancel()


async def test_a_revoked_installation_is_told_and_cut_within_five_seconds(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander, world.node() as node:
        await revoke(world.owner_url, world.site.install_id)
        with trio.fail_after(5):
            goaway = await node.hear(Goaway)
            assert "link-loss policy" in goaway.reason
            assert (await node.closed())[0] == 4502
        assert await bystander.is_served()
        assert (await world.rejection()).status == 403


async def test_a_token_is_renewed_in_band_or_the_socket_ends(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.socket(token=world.node_token(lifetime_s=2)) as node:
        await node.greet()
        await node.say(AuthRefresh(token=world.node_token(uuid4())))
        refused = await node.hear(Error)
        assert refused.code == "forbidden"
        await node.say(AuthRefresh(token=world.node_token(lifetime_s=3)))
        assert (await node.hear(EventToken)).state is TokenState.RENEWED
        code, _ = await node.closed()
        assert code == 4004


async def test_a_node_with_a_higher_epoch_than_a_restored_database_is_welcomed_above_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world:
        async with world.node(last_epoch=41) as node:
            assert node.epoch == 42
        with psycopg.connect(world.owner_url) as connection:
            connection.execute("UPDATE skygw.node_session SET epoch = 3 WHERE install_id = %s", [world.site.install_id])
            connection.execute("DELETE FROM skygw.node_outbox WHERE install_id = %s", [world.site.install_id])
        async with world.node(last_epoch=42, outbox_uid=node.hello.outbox_uid) as again:
            assert again.epoch == 43
            assert again.welcome is not None
            assert again.welcome.acked_seq == 0


async def test_a_disconnected_node_is_told_to_come_back(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        path = f"/internal/nodes/{world.site.install_id}/disconnect"
        assert (await world.ask("POST", path)).status_code == 204
        assert (await node.closed())[0] == 4001
        assert (await world.ask("POST", path)).status_code == 503
        close = (await world.node_view())["lastClose"]
        assert (close["code"], close["byNode"]) == (4001, False)
        assert "administrator" in close["reason"]
