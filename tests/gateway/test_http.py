"""The HTTP doors as the contract has them: listeners apart, problems with every member, nothing odd taken in."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio
from trio_websocket import wrap_client_stream

from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, World, bearer, gateway

MEMBERS = {"detail", "code", "outcome", "retry", "hop", "reached", "requestId"}


async def posted(world: World, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    answer = await world.http.post(path, content=body, timeout=PATIENCE_S)
    return answer.status_code, answer.json()


async def test_a_path_of_one_listener_does_not_exist_on_the_other(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        node, internal = world.running.node_url, world.running.internal_url
        for url in (
            f"{node}/internal/nodes",
            f"{node}{world.direct_path}",
            f"{node}/metrics",
            f"{node}/readyz",
            f"{node}/docs/",
            f"{internal}/v1/nodes/me",
            f"{internal}/v1/ws/node",
            f"{internal}/",
        ):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                answer = await world.ask(method, url)
                assert answer.status_code == 404, (method, url)
                if method != "HEAD":
                    assert set(answer.json()) == MEMBERS
        for url, asked in ((f"{node}/internal/ws/stream", "node"), (f"{internal}/v1/ws/node", "internal")):
            said = (await world.ask("GET", url)).json()["detail"]
            assert said.startswith(f"There is nothing at this path on the {asked} listener, which is for "), url
        for url in (node, internal):
            answer = await world.ask("GET", f"{url}/healthz", headers={"authorization": ""})
            assert answer.json() == {"status": "ok"}


async def test_head_and_options_and_wrong_methods_are_answered_sanely(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        head = await world.ask("HEAD", "/internal/nodes")
        assert (head.status_code, head.content) == (200, b"")
        options = await world.ask("OPTIONS", "/internal/commands")
        assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
        for path, allowed in (
            ("/internal/nodes", {"GET", "HEAD", "OPTIONS"}),
            (world.direct_path, {"OPTIONS", "POST"}),
        ):
            wrong = await world.ask("DELETE", path)
            assert wrong.status_code == 405
            assert set(wrong.headers["allow"].split(", ")) == allowed
            assert set(wrong.json()) == MEMBERS
        asked = await world.ask("OPTIONS", world.direct_path)
        assert (asked.status_code, asked.headers["allow"]) == (200, "OPTIONS, POST")
        refused = await world.ask("HEAD", world.direct_path)
        assert (refused.status_code, refused.content) == (405, b"")
        assert (await world.ask("GET", "/healthz")).status_code == 200  # the connection is still in step


async def test_a_missing_scope_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        some = uuid4()
        reader, commander = world.service_token("nodes:read"), world.service_token("nodes:command")
        person = {"uid": "1", "kind": "user"}
        command = {"telescopeUid": str(some), "commandId": str(some), "command": {"command_type": "mount.park"}}
        for token, method, path, body, scope in (
            (commander, "GET", "/internal/nodes", None, "nodes:read"),
            (reader, "POST", world.direct_path, {"operation": "a", "params": {}}, "nodes:call"),
            (reader, "POST", "/internal/commands", command, "nodes:command"),
            (reader, "POST", "/internal/drain", None, "nodes:admin"),
            (reader, "POST", f"/internal/nodes/{some}/disconnect", None, "nodes:admin"),
            (reader, "GET", "/internal/calls/x", None, "nodes:call"),
            (commander, "POST", "/internal/commands", {**command, "actor": person}, "act_as"),
        ):
            answer = await world.ask(method, path, body, headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
            assert scope in answer.json()["detail"]
            assert answer.json()["retry"] == "never"
        stop = {**command, "command": {"command_type": "mount.stop"}, "actor": person}
        by = {"authorization": f"Bearer {commander}"}
        answer = await world.ask("POST", "/internal/commands", stop, headers=by)
        assert (answer.status_code, answer.json()["code"]) == (503, "node_offline")  # and not for want of `act_as`


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer a.b.c", "Bearer " + "x" * 9_000])
async def test_a_token_that_does_not_hold_is_401(authorization: str, postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        for method, path in (("GET", "/internal/nodes"), ("POST", world.direct_path)):
            answer = await world.ask(method, path, headers={"authorization": authorization})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert (answer.json()["code"], answer.json()["retry"]) == ("unauthenticated", "after_auth")


async def test_an_address_outside_the_networks_learns_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    through_a_proxy = {"internal_networks": ["192.0.2.0/24"], "internal_trusted_proxies": ["127.0.0.1/32"]}
    async with gateway(postgres, tmp_path, **through_a_proxy) as world:
        for path in ("/internal/nodes", world.direct_path, "/metrics", "/readyz", "/docs/", "/no/such/path"):
            method = "POST" if path.endswith("direct") else "GET"
            answer = await world.ask(method, path, headers={"x-forwarded-for": "203.0.113.5"})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
            assert "203.0.113.5" in answer.json()["detail"]


async def test_a_peer_that_is_neither_a_caller_nor_a_proxy_is_not_even_read(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path, internal_networks=["192.0.2.0/24"]) as world:
        with pytest.raises(httpx.TransportError):
            await world.ask("GET", "/metrics", headers={"x-forwarded-for": "192.0.2.7"})
        assert (await world.ask("GET", f"{world.running.node_url}/healthz")).status_code == 200


async def test_what_a_proxy_says_counts_only_if_the_proxy_is_trusted(postgres: PostgresServer, tmp_path: Path) -> None:
    spoofed = {"x-forwarded-for": "192.0.2.7"}
    trusting = {"internal_networks": ["192.0.2.0/24"], "internal_trusted_proxies": ["127.0.0.1/32"]}
    async with gateway(postgres, tmp_path, **trusting) as world:
        assert (await world.ask("GET", "/metrics", headers=spoofed)).status_code == 200
        left_of_a_stranger = {"x-forwarded-for": "192.0.2.7, 203.0.113.5"}
        assert (await world.ask("GET", "/metrics", headers=left_of_a_stranger)).status_code == 403


BROKEN = {
    "no JSON": b"{",
    "an array": b"[]",
    "no UTF-8": b'{"operation":"\xff"}',
    "a missing field": b'{"operation":"a"}',
    "an unknown field": b'{"operation":"a","params":{},"timeout":5}',
    "both spellings": b'{"operation":"a","params":{},"timeoutS":5,"timeout_s":5}',
    "a key twice": b'{"operation":"a","operation":"a","params":{}}',
    "a key twice inside": b'{"operation":"a","params":{"x":1,"x":2}}',
    "not a number": b'{"operation":"a","params":{"x":NaN}}',
    "an endless number": b'{"operation":"a","params":{"x":1e999}}',
    "a nul": b'{"operation":"a","params":{"x":"\\u0000"}}',
    "a lone surrogate": b'{"operation":"a","params":{"x":"\\ud800"}}',
    "parameters that are no object": b'{"operation":"a","params":[]}',
    "an endless wait": b'{"operation":"a","params":{},"timeoutS":1e9}',
    "a request id with a line break": b'{"operation":"a","params":{},"requestId":"a\\nb"}',
    "an operation that is a path": b'{"operation":"../etc","params":{}}',
    "too deep": b'{"operation":"a","params":{"x":' + b"[" * 100 + b"]" * 100 + b"}}",
    "nothing": b"",
}


async def test_a_broken_body_is_422_with_a_list_of_what_is_wrong(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        for what, body in BROKEN.items():
            for path in (world.direct_path, "/internal/commands"):
                status, problem = await posted(world, path, body)
                assert (status, problem["code"], problem["outcome"]) == (422, "invalid", "not_sent"), what
                assert problem["retry"] == "never"
                for item in problem["detail"]:
                    assert isinstance(item["type"], str)
                    assert isinstance(item["loc"], list)
                    assert isinstance(item["msg"], str)
                assert problem["detail"], what
        assert await bystander.is_served()


async def test_a_field_is_named_as_it_was_to_be_spelled(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        _, problem = await posted(world, "/internal/commands", b'{"command":{},"telescopeUid":"x"}')
        assert [item["loc"] for item in problem["detail"]] == [["body", "telescopeUid"], ["body", "commandId"]]
        answer = await world.ask("GET", "/internal/nodes?size=0")
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "size"]


async def test_a_body_beyond_the_limit_is_413(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        body = json.dumps({"operation": "a", "params": {"x": "y" * 70_000}}).encode()

        async def in_chunks() -> Any:
            for at in range(0, len(body), 10_000):
                yield body[at : at + 10_000]

        for path in (world.direct_path, "/internal/commands"):
            status, problem = await posted(world, path, body)
            assert (status, problem["code"]) == (413, "invalid")
            answer = await world.http.post(path, content=in_chunks(), timeout=PATIENCE_S)
            assert (answer.status_code, answer.json()["code"]) == (413, "invalid")


async def test_pages_have_the_shape_of_the_house(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        for path in ("/internal/nodes?page=1&size=1", "/internal/commands?size=2"):
            page = (await world.ask("GET", path)).json()
            assert set(page) == {"items", "total", "page", "size", "pages"}
        assert (await world.ask("GET", "/internal/nodes?size=501")).status_code == 422
        assert (await world.ask("GET", "/internal/commands?state=gone")).status_code == 422


@pytest.mark.parametrize("which", ["no-such", "0", "999999999999999999999", "%00", str(uuid4()), "a" * 300, "%F0%9F"])
async def test_an_unknown_id_is_404(which: str, postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        for method, path in (
            ("GET", f"/internal/nodes/{which}"),
            ("POST", f"/internal/nodes/{which}/disconnect"),
            ("GET", f"/internal/commands/{which}"),
            ("GET", f"/internal/calls/{which}"),
        ):
            answer = await world.ask(method, path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        answer = await world.ask("POST", f"/internal/nodes/{which}/direct", {"operation": "a", "params": {}})
        assert answer.status_code == 404


async def test_an_installation_sees_itself(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        headers = {"authorization": f"Bearer {world.node_token()}"}
        me = (await world.ask("GET", f"{world.running.node_url}/v1/nodes/me", headers=headers)).json()
        assert me["uid"] == str(world.site.install_id)
        assert me["telescopes"] == [str(world.site.telescope_uid)]
        assert me["devices"] == [str(world.site.mount_uid)]


async def test_readiness_goes_through_a_session_and_the_database(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        ready = await world.ask("GET", "/readyz", headers={"authorization": ""})
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True,
            "checks": {"draining": "ok", "loopback": "ok", "registry": "ok", "database": "ok"},
        }


async def test_numbers_are_prometheus_text(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        assert await bystander.is_served()
        answer = await world.ask("GET", "/metrics", headers={"authorization": ""})
        assert answer.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))
        for word in ("skygw_", 'kind="direct_response_start"', "/internal/nodes/<id>/direct"):
            assert word in answer.text


async def test_a_misspelt_query_parameter_is_refused_and_named(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world:
        for path, name in (
            ("/internal/commands", "installid"),
            ("/internal/nodes", "foo"),
            ("/internal/nodes/1", "size"),
        ):
            answer = await world.ask("GET", f"{path}?{name}=1")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
            assert answer.json()["detail"][0]["loc"] == ["query", name]


async def test_a_client_behind_a_proxy_that_has_too_much_under_way_may_still_stop(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    proxied = {"internal_trusted_proxies": ["127.0.0.1/32"], "internal_networks": ["127.0.0.0/8", "198.51.100.0/24"]}
    async with gateway(postgres, tmp_path, max_connections_per_address=1, **proxied) as world:
        busy, other = {"x-forwarded-for": "198.51.100.7"}, {"x-forwarded-for": "198.51.100.8"}
        head = f"POST {world.direct_path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\nContent-Length: 9\r\n"
        token = f"Authorization: Bearer {world.service_token()}\r\nExpect: 100-continue\r\n\r\n"
        stream = await trio.open_tcp_stream("127.0.0.1", world.internal_port)
        try:
            await stream.send_all((head + token).encode())
            with trio.fail_after(PATIENCE_S):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
            refused = await world.ask("GET", "/internal/nodes", headers=busy)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "5"
            cancel = await world.ask("POST", f"/internal/commands/{uuid4()}/cancel", headers=busy)
            assert cancel.status_code == 404
            assert (await world.ask("GET", "/internal/nodes", headers=other)).status_code == 200
        finally:
            stream.socket.close()


async def test_nodes_behind_one_proxy_are_counted_apart(postgres: PostgresServer, tmp_path: Path) -> None:
    proxied = {"node_trusted_proxies": ["127.0.0.1/32"], "max_connections_per_address": 1}
    async with gateway(postgres, tmp_path, **proxied) as world:
        known, headers = world.node_token(), {"x-forwarded-for": "198.51.100.7"}
        async with world.socket(), trio.open_nursery() as nursery:  # of no named client: the proxy's own
            stream = await trio.open_tcp_stream("127.0.0.1", world.node_port)
            try:
                more = [*bearer(known), (b"x-forwarded-for", b"198.51.100.7")]
                await wrap_client_stream(
                    nursery, stream, "a", "/v1/ws/node", subprotocols=["skynet.node.v1"], extra_headers=more
                )
                rejected = await world.rejection(headers=more)
                assert (rejected.status, rejected.headers["retry-after"]) == (503, "5")
                healthz = f"{world.running.node_url}/healthz"
                assert (await world.ask("GET", healthz, headers=headers)).status_code == 429
                assert (await world.ask("GET", healthz)).status_code == 200
            finally:
                nursery.cancel_scope.cancel()
                stream.socket.close()
