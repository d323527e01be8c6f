"""Tokens that only the issuer understands: asked about at the door, and again while the socket lives."""

import time
from pathlib import Path
from typing import Any

import trio
from pydantic import SecretStr

from skygw.ids import InstallId
from skygw.protocol.gateway_frames import EventCommand, Goaway
from skygw.protocol.node_frames import Ping, Pong
from tests.fakes.issuer import INTROSPECTION_PATH, FakeIssuer, Mood, fake_issuer
from tests.fakes.postgres import PostgresServer
from tests.gateway.test_database_away import a_command
from tests.gateway.world import PATIENCE_S, gateway


def introspecting(issuer: FakeIssuer) -> dict[str, Any]:
    return {
        "introspection_url": issuer.introspection_url,
        "introspection_client_id": "gateway",
        "introspection_client_secret": SecretStr("secret"),
        "token_issuer": "https://issuer.example.org",
    }


def what_it_stands_for(install_id: InstallId) -> dict[str, Any]:
    return {"sub": str(install_id), "aud": "sky-node-gateway", "scope": "node", "exp": int(time.time()) + 600}


async def test_a_token_revoked_at_the_issuer_ends_its_live_socket_within_five_seconds(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with fake_issuer() as issuer, gateway(postgres, tmp_path, **introspecting(issuer)) as world:
        issuer.introspected["opaque-1"] = what_it_stands_for(world.site.install_id)
        async with world.socket(token="opaque-1") as node:
            await node.greet()
            with trio.fail_after(5):
                await issuer.wait_for_hits(INTROSPECTION_PATH, 2)  # while it holds, nothing happens
            await node.say(Ping(id="still here"))
            assert (await node.hear(Pong)).id == "still here"
            del issuer.introspected["opaque-1"]
            with trio.fail_after(5):
                assert "link-loss policy" in (await node.hear(Goaway)).reason
                assert (await node.closed())[0] == 4502
        assert (await world.rejection(headers=[(b"authorization", b"Bearer opaque-1")])).status == 401


async def test_an_issuer_that_is_away_ends_no_socket(postgres: PostgresServer, tmp_path: Path) -> None:
    async with fake_issuer() as issuer, gateway(postgres, tmp_path, **introspecting(issuer)) as world:
        issuer.introspected["opaque-2"] = what_it_stands_for(world.site.install_id)
        async with world.socket(token="opaque-2") as node:
            await node.greet()
            await issuer.become(Mood.SERVER_ERROR)
            with trio.fail_after(5):
                await issuer.wait_for_hits(INTROSPECTION_PATH, 2)
            await node.say(Ping(id="still here"))
            assert (await node.hear(Pong)).id == "still here"
        refused = await world.rejection(headers=[(b"authorization", b"Bearer opaque-3")])
        assert (refused.status, refused.problem["code"]) == (503, "routing_unavailable")


async def test_while_the_issuer_is_away_a_known_service_can_stop_and_nothing_else(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with fake_issuer() as issuer, gateway(postgres, tmp_path, **introspecting(issuer)) as world:
        issuer.introspected["opaque-node"] = what_it_stands_for(world.site.install_id)
        issuer.introspected["opaque-service"] = {
            "sub": "scheduler",
            "aud": "sky-node-gateway-internal",
            "scope": "nodes:read nodes:command nodes:call act_as",
            "exp": int(time.time()) + 600,
        }
        world.http.headers["authorization"] = "Bearer opaque-service"
        async with world.socket(token="opaque-node") as node:
            await node.greet()
            assert (await world.ask("GET", "/internal/nodes?connected=true")).status_code == 200
            await issuer.become(Mood.SERVER_ERROR)
            with trio.fail_after(PATIENCE_S):  # until the answer just given is not fresh any more
                while (reading := await world.ask("GET", "/internal/nodes")).status_code == 200:
                    pass
            assert (reading.status_code, reading.json()["code"]) == (503, "routing_unavailable")
            # Whoever stops everything has to know who is connected.
            assert (await world.ask("GET", "/internal/nodes?connected=true")).status_code == 200
            moving = await world.ask("POST", "/internal/commands", a_command(world, "mount.unpark"))
            assert (moving.status_code, moving.json()["code"]) == (503, "routing_unavailable")
            assert (await world.direct()).status_code == 503
            stop = a_command(world, "mount.stop", actor={"uid": "3b0f", "kind": "user"})
            assert (await world.ask("POST", "/internal/commands", stop)).status_code == 202
            assert str((await node.hear(EventCommand)).command_id) == stop["commandId"]
            cancel = await world.ask("POST", f"/internal/commands/{stop['commandId']}/cancel", {})
            assert cancel.status_code == 200
            world.http.headers["authorization"] = "Bearer never-seen"
            stranger = await world.ask("POST", "/internal/commands", a_command(world, "mount.stop"))
            assert stranger.status_code == 503
