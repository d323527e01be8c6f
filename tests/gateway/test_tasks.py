"""Tasks over the doors of a whole gateway: claimed within a second of being there, reported, and nobody else's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jsonschema
import psycopg
import trio

from skygw.client.node import NodeClient, NodeConfig, NodeType, Token
from skygw.database.provision import NewDevice, NewInstrument, NewObservatory, NewTelescope, provision
from skygw.ids import InstallId, InstanceUid
from skygw.protocol.gateway_frames import EventTaskChanged, EventTasksAvailable, TaskDirective
from skygw.protocol.streams import StreamName
from tests.fakes.postgres import PostgresServer
from tests.gateway.test_streams import event_source
from tests.gateway.world import NO_TLS, PATIENCE_S, World, gateway

AT = "2026-11-22T02:03:04Z"


@dataclass
class Observing:
    """A gateway whose site has an instrument, and its node's way to the doors."""

    world: World
    instrument_uid: UUID
    observation_uid: UUID
    node: httpx.AsyncClient

    async def ask(self, method: str, path: str = "", body: Any = None, **kwargs: Any) -> httpx.Response:
        with trio.fail_after(PATIENCE_S):
            return await self.node.request(method, f"/v1/nodes/me/tasks{path}", json=body, **kwargs)

    def insert(self, status: str = "pending") -> UUID:
        uid = uuid4()
        with psycopg.connect(self.world.owner_url) as connection:
            connection.execute(
                "INSERT INTO observation_task (uid, task_type, status, instrument_id, observation_id) "
                "SELECT %s, 'optical_imaging', %s, instrument.id, observation.id FROM instrument, observation "
                "WHERE instrument.uid = %s AND observation.uid = %s",
                [uid, status, self.instrument_uid, self.observation_uid],
            )
        return uid

    def cancel(self, task: UUID) -> None:
        with psycopg.connect(self.world.owner_url) as connection:
            connection.execute("UPDATE observation_task SET status = 'canceled' WHERE uid = %s", [task])

    async def claim(self) -> list[dict[str, Any]]:
        answer = await self.ask("POST", "/claim", {"claimUid": str(uuid4()), "max": 10})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["tasks"])


def a_progress(**members: Any) -> dict[str, Any]:
    return {"reportUid": str(uuid4()), "phase": "exposing", "progress": 0.5, "reportedAt": AT, **members}


def a_completion(**members: Any) -> dict[str, Any]:
    return {"reportUid": str(uuid4()), "status": "failed", "reasonCode": "weather", **members}


def some_results(*uids: UUID) -> dict[str, Any]:
    return {"reportUid": str(uuid4()), "results": [{"resultUid": str(uid), "assetUids": []} for uid in uids]}


@asynccontextmanager
async def observing(postgres: PostgresServer, data_dir: Path) -> AsyncIterator[Observing]:
    async with gateway(postgres, data_dir) as world:
        instrument, observation = uuid4(), uuid4()
        site = world.site
        telescope = NewTelescope(
            site.telescope_uid,
            "Dome A",
            devices=(NewDevice(site.mount_uid, "mount"),),
            instruments=(NewInstrument(instrument, "optical_imager"),),
            install_id=site.install_id,
        )
        await provision(world.owner_url, [NewObservatory(uuid4(), "Ridge", (telescope,))])
        with psycopg.connect(world.owner_url) as connection:
            connection.execute("INSERT INTO observation (uid) VALUES (%s)", [observation])
        headers = {"authorization": f"Bearer {world.node_token()}"}
        async with httpx.AsyncClient(
            base_url=world.running.node_url, timeout=PATIENCE_S, verify=NO_TLS, headers=headers
        ) as node:
            yield Observing(world, instrument, observation, node)


async def test_a_target_of_opportunity_is_claimed_by_a_real_node_within_a_second_of_its_insert(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with observing(postgres, tmp_path) as sky, trio.open_nursery() as nursery:
        world = sky.world

        async def token() -> Token:
            return Token(world.node_token(), None)

        node = NodeClient(
            NodeConfig(
                url=world.running.node_url.replace("http", "ws") + "/v1/ws/node",
                install_id=world.site.install_id,
                instance_uid=InstanceUid(uuid4()),
                node_type=NodeType.TELESCOPE,
                software_version="test",
                state_dir=tmp_path / "node",
                token=token,
            )
        )
        got, claimed = trio.open_memory_channel[str](10)

        @node.on_tasks_offered
        async def claim() -> None:
            for task in await sky.claim():
                got.send_nowait(task["uid"])

        nursery.start_soon(node.run)
        first = sky.insert()
        with trio.fail_after(PATIENCE_S):
            assert await claimed.receive() == str(first)
        for _ in range(5):  # whoever only looks every few seconds would miss one of them
            task = await trio.to_thread.run_sync(sky.insert)
            with trio.fail_after(1.0):
                assert await claimed.receive() == str(task)
        nursery.cancel_scope.cancel()


async def test_a_node_hears_of_each_task_once_and_of_what_is_canceled(postgres: PostgresServer, tmp_path: Path) -> None:
    async with observing(postgres, tmp_path) as sky:
        before = sky.insert()
        async with sky.world.node() as node:
            assert (await node.hear(EventTasksAvailable)).task_uids == (before,)
            then = sky.insert()
            told = await node.hear(EventTasksAvailable)
            assert (told.task_uids, told.telescope_uid) == ((then,), sky.world.site.telescope_uid)
            assert {task["uid"] for task in await sky.claim()} == {str(before), str(then)}
            await sky.ask("POST", f"/{then}/progress", a_progress())
            sky.cancel(then)
            word = await node.hear(EventTaskChanged)
            assert (word.task_uid, word.directive, word.reason) == (then, TaskDirective.ABORT, "canceled")
            answer = await sky.ask("POST", f"/{then}/progress", a_progress())
            assert (answer.json()["directive"], answer.json()["status"]) == ("abort", "canceled")


async def test_gateways_hear_of_tasks_again_when_the_connection_that_listens_was_killed(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with observing(postgres, tmp_path) as sky, sky.world.node() as node:
        with psycopg.connect(sky.world.owner_url) as connection:
            killed = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%skygw_task%'"
            ).fetchall()
        assert killed
        task = sky.insert()
        assert (await node.hear(EventTasksAvailable)).task_uids == (task,)


async def test_a_task_is_claimed_begun_and_ended_over_the_doors_as_their_document_says(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with observing(postgres, tmp_path) as sky:
        document = (await sky.world.ask("GET", "/docs/openapi-node.json", headers={"authorization": ""})).json()

        def fits(path: str, answer: httpx.Response) -> dict[str, Any]:
            told = document["paths"][path][answer.request.method.lower()]["responses"][str(answer.status_code)]
            schema = {**told["content"]["application/json"]["schema"], "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(answer.json())
            return dict(answer.json())

        root = "/v1/nodes/me/tasks"
        task = sky.insert()
        claim = {"claimUid": str(uuid4())}
        claimed = fits(f"{root}/claim", await sky.ask("POST", "/claim", claim))
        assert [each["uid"] for each in claimed["tasks"]] == [str(task)]
        assert fits(f"{root}/claim", await sky.ask("POST", "/claim", claim)) == claimed
        said = a_progress(message="über", accumulatedExposureTime=3.0, observatoryAcquiredFrames=1)
        progress = await sky.ask("POST", f"/{task}/progress", said)
        assert fits(root + "/{taskId}/progress", progress)["directive"] == "continue"
        assert (await sky.ask("POST", f"/{task}/progress", said)).content == progress.content
        one = fits(root + "/{taskId}", await sky.ask("GET", f"/{task}"))
        assert (one["status"], one["claim"]["phase"], one["actualStartTime"]) == ("active", "exposing", AT)
        page = fits(root, await sky.ask("GET", "?status=active,pending&orderBy=plannedStartTime&order=desc"))
        assert (page["total"], page["items"]) == (1, [one])
        fits(root + "/{taskId}/release", await sky.ask("POST", f"/{task}/release"))
        done = a_completion(actualEndTime="2026-11-22T02:13:04+00:00", summary="Clouds.", reschedulable=True)
        assert fits(root + "/{taskId}/complete", await sky.ask("POST", f"/{task}/complete", done))["status"] == "failed"
        refused = await sky.ask("POST", f"/{task}/complete", a_completion(status="completed", assets=[str(uuid4())]))
        problem = fits(root + "/{taskId}/complete", refused)
        assert (refused.status_code, problem["code"], problem["retry"]) == (409, "illegal_transition", "never")


async def test_another_installations_task_is_404_in_the_words_of_one_that_is_none(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with observing(postgres, tmp_path) as sky:
        task, none = sky.insert(), uuid4()
        async with sky.world.bystander() as other:
            headers = {"authorization": f"Bearer {sky.world.node_token(other.install_id)}"}
            for method, path, body in (
                ("GET", "", None),
                ("POST", "/release", None),
                ("POST", "/progress", a_progress()),
                (
                    "POST",
                    "/results",
                    {"reportUid": str(uuid4()), "results": [{"resultUid": str(none), "assetUids": []}]},
                ),
                ("POST", "/complete", a_completion()),
            ):
                foreign = await sky.ask(method, f"/{task}{path}", body, headers=headers)
                nothing = await sky.ask(method, f"/{none}{path}", body, headers=headers)
                assert foreign.status_code == nothing.status_code == 404
                assert foreign.text.replace(str(task), "") == nothing.text.replace(str(none), "")
            assert (await sky.ask("GET", headers=headers)).json()["total"] == 0
            claim = await sky.ask("POST", "/claim", {"claimUid": str(uuid4()), "max": 100}, headers=headers)
            assert claim.json()["tasks"] == []
        assert (await sky.ask("GET", f"/{task}")).json()["claim"] is None


def each(verb: str, name: str, *values: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(verb, {name: value}) for value in values]


WRONG = [
    *each("claim", "claimUid", None, 1, "x", "", [], {}),
    *each("claim", "max", None, 0, -1, 101, 1.5, "1", True, 1e300),
    *each("claim", "more", 1),
    *each("claim", "claim_uid", str(uuid4())),  # beside the other spelling
    *each("progress", "progress", None, -0.1, 1.1, "0.5", True, []),
    *each("progress", "phase", None, "", "x" * 101, 1, {}),
    *each("progress", "reportedAt", None, 1, "soon", "2026-11-22T00:00:00", "0001-01-01T00:00:00+23:00"),
    *each("progress", "reportUid", None, 7, "x"),
    *each("progress", "accumulatedExposureTime", -1, "1", True),
    *each("progress", "observatoryAcquiredFrames", -1, 2**31, 1.5, "1"),
    *each("progress", "estimatedEndTime", "later", 5),
    *each("progress", "message", "x" * 2_001, 5),
    *each("complete", "status", None, "active", "pending", "unassigned", "done", 1),
    *each("complete", "reasonCode", "", "Weather", "x" * 65, 1, "a b"),
    *each("complete", "reschedulable", 1, "true"),
    *each("complete", "assets", None, {}, "x", ["x"], [1], [str(uuid4())] * 1_001),
    *each("complete", "actualStartTime", 5, "now"),
    *each("complete", "actualEndTime", 5, "now"),
    *each("complete", "summary", 5, "x" * 2_001),
    *each("complete", "colour", "red"),
    *each("results", "results", None, [], {}, [{}], [{"resultUid": "x", "assetUids": []}]),
    *each("results", "results", [{"resultUid": str(UUID(int=1)), "assetUids": []}] * 2),
]


async def test_every_field_that_is_wrong_is_named_and_changes_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    async with observing(postgres, tmp_path) as sky:
        task = sky.insert()
        await sky.claim()
        good: dict[str, Any] = {
            "claim": {"claimUid": str(uuid4())},
            "progress": a_progress(),
            "complete": a_completion(),
            "results": {"reportUid": str(uuid4()), "results": []},
        }
        for verb, wrong in WRONG:
            path = "/claim" if verb == "claim" else f"/{task}/{verb}"
            answer = await sky.ask("POST", path, {**good[verb], **wrong})
            assert answer.status_code in (413, 422), (verb, wrong, answer.text)
            if answer.status_code == 422:
                assert answer.json()["code"] == "invalid"
                assert answer.json()["detail"][0]["loc"][0] == "body", (verb, wrong, answer.text)
        for raw in (b"", b"[]", b"{", b'{"claimUid": NaN}', b"\xff", b'{"max": 1, "max": 2}'):
            answer = await sky.ask("POST", "/claim", content=raw)
            assert answer.status_code == 422
        for query in (
            "status=done",
            "status=",
            "taskType=x",
            "orderBy=uid",
            "order=up",
            "expiresAfter=soon",
            "completedBefore=2026-11-22",
            "page=0",
            "size=501",
            "colour=red",
        ):
            answer = await sky.ask("GET", f"?{query}")
            assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query"), query
        read = (await sky.ask("GET", f"/{task}")).json()
        assert (read["status"], read["claim"]["progress"]) == ("pending", None)


async def test_an_interlock_that_is_the_present_refuses_a_claim_and_one_that_is_over_does_not(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with observing(postgres, tmp_path) as sky, sky.world.node() as node:
        sky.insert()
        claim = {"claimUid": str(uuid4())}

        async def say(live_seq: int, *, active: bool) -> None:
            data = {"uid": str(sky.world.site.telescope_uid), "active": active, "reasons": ["rain"]}
            snapshot = {
                "kind": "publish_snapshot",
                "stream": "shutdown_interlock_snapshot",
                "data": data,
                "observed_at": AT,
                "max_silence_s": 60,
                "live_seq": live_seq,
            }
            await node.say(json.dumps(snapshot))

        async def answered(status: int) -> dict[str, Any]:
            """What is said travels on another connection."""
            with trio.fail_after(PATIENCE_S):
                while True:
                    answer = await sky.ask("POST", "/claim", claim)
                    if answer.status_code == status:
                        return dict(answer.json())

        async def heard() -> None:
            with trio.fail_after(PATIENCE_S):
                while not (await sky.world.node_view())["streams"]:
                    await trio.lowlevel.checkpoint()

        await say(1, active=True)
        await heard()
        refused = await answered(409)
        assert (refused["code"], refused["details"]["reasons"]) == ("interlock_active", ["rain"])
        await say(2, active=False)
        assert len((await answered(200))["tasks"]) == 1


async def test_an_observatorys_installation_claims_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    async with observing(postgres, tmp_path) as sky:
        sky.insert()
        install_id = InstallId(uuid4())
        await provision(sky.world.owner_url, [NewObservatory(uuid4(), "Roof", install_id=install_id)])
        headers = {"authorization": f"Bearer {sky.world.node_token(install_id)}"}
        answer = await sky.ask("POST", "/claim", {"claimUid": str(uuid4())}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_what_a_node_reports_is_told_to_subscribers(postgres: PostgresServer, tmp_path: Path) -> None:
    async with observing(postgres, tmp_path) as sky:
        task = sky.insert()
        await sky.claim()
        report = a_progress()
        await sky.ask("POST", f"/{task}/progress", report)
        told: list[dict[str, Any]] = []
        query = f"?after=earliest&installId={sky.world.site.install_id}"
        async with event_source(sky.world, StreamName.TASK_REPORT, query) as source:
            with trio.fail_after(PATIENCE_S):
                while len(told) < 2:
                    kind, event = await source.hear()
                    if kind == "event_task_report":
                        told.append(event["data"])
        claim, progress = told
        assert (claim["kind"], claim["task_uids"]) == ("claim", [str(task)])
        assert (progress["kind"], progress["report_uid"]) == ("progress", report["reportUid"])
        assert (progress["task_status"], progress["phase"]) == ("active", "exposing")
