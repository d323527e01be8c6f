"""Files on their way from an installation to a service: declared, sent, verified, read, by real HTTP."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from skygw.app import FILES_FOLDER
from skygw.database.assets import PgAssets
from skygw.database.pool import open_loop_and_database
from skygw.database.uploads import PgUploads
from skygw.ids import UploadUid
from skygw.observing.assets import AssetRole, Declaration
from skygw.observing.upload_store import NewUpload, Quota
from skygw.protocol.gateway_frames import DirectRequest
from skygw.storage.local import LocalStore
from tests.fakes.fits_files import SKY, card, image
from tests.fakes.observing_records import ObservingSite
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, Site, World, gateway

TUS = {"tus-resumable": "1.0.0"}
FITS = {"contentType": "image/fits"}
READER = {"assets:read", "nodes:call"}


def a_frame() -> bytes:
    """A whole FITS file that nobody has sent before."""
    return image(4, 3, *SKY, card("ORIGIN", uuid4().hex))


@dataclass
class Node:
    """What an installation sends over HTTP."""

    world: World
    site: ObservingSite
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = self.world.http

    @property
    def url(self) -> str:
        return self.world.running.node_url

    async def ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        token = f"Bearer {self.world.node_token(self.site.install_id)}"
        headers = {"authorization": token, **kwargs.pop("headers", {})}
        with trio.fail_after(PATIENCE_S):
            return await self.http.request(method, self.url + path, headers=headers, **kwargs)

    def body(self, content: bytes, **other: Any) -> dict[str, Any]:
        return {
            "taskUid": str(self.site.task_uid),
            "observationUid": str(self.site.observation_uid),
            "instrumentUid": str(self.site.instrument_uid),
            "role": "SCIENCE_LIGHT",
            "fileName": "m13 – ½.fits",
            "size": len(content),
            "sha256": sha256(content).hexdigest(),
            # What is not about FITS does without the process that would have to be started for it.
            "contentType": "application/octet-stream",
            **other,
        }

    async def declare(self, content: bytes, **other: Any) -> httpx.Response:
        return await self.ask("POST", "/v1/nodes/me/assets", json=self.body(content, **other))

    async def send(self, url: str, content: bytes, *, at: int = 0) -> httpx.Response:
        headers = {**TUS, "upload-offset": str(at), "content-type": "application/offset+octet-stream"}
        return await self.ask("PATCH", url, content=content, headers=headers)

    async def settled(self, uid: str) -> dict[str, Any]:
        """The asset when it is verified or has failed."""
        with trio.fail_after(PATIENCE_S):
            while True:
                asset: dict[str, Any] = (await self.ask("GET", f"/v1/nodes/me/assets/{uid}")).json()
                if asset["transferState"] in ("completed", "failed"):
                    return asset
                await trio.sleep(0.05)

    async def verified(self, content: bytes, **other: Any) -> dict[str, Any]:
        declared = (await self.declare(content, **other)).json()
        assert (await self.send(declared["upload"]["url"], content)).status_code == 204
        asset = await self.settled(declared["asset"]["uid"])
        assert asset["transferState"] == "completed", asset
        return asset


@asynccontextmanager
async def observing(postgres: PostgresServer, data_dir: Path, **settings: Any) -> AsyncIterator[tuple[World, Node]]:
    async with gateway(postgres, data_dir, **settings) as world:
        world.http.headers["authorization"] = f"Bearer {world.service_token(*READER)}"
        yield world, Node(world, await ObservingSite().provision(world.owner_url))


async def test_a_frame_comes_in_pieces_is_verified_and_is_read_as_it_was(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    frame = a_frame()
    async with observing(postgres, tmp_path) as (world, node):
        first = await node.declare(frame, **FITS)
        again = await node.declare(frame, **FITS)
        asset, upload = first.json()["asset"], first.json()["upload"]
        await node.send(upload["url"], frame[:1000])
        halfway = (await node.ask("GET", f"/v1/nodes/me/assets/{asset['uid']}")).json()
        await node.send(upload["url"], frame[1000:], at=1000)
        done = await node.settled(asset["uid"])
        copy = await node.declare(frame, fileName="copy.fits", **FITS)
        page = (await node.ask("GET", "/v1/nodes/me/assets?transferState=completed")).json()
        shown = (await world.ask("GET", f"/internal/assets/{asset['id']}")).json()
        listed = (await world.ask("GET", f"/internal/assets?taskUid={node.site.task_uid}&role=SCIENCE_LIGHT")).json()
        read = await world.ask("GET", shown["contentUrl"])

    assert (first.status_code, again.status_code, copy.status_code) == (201, 201, 200)
    assert again.json()["asset"]["uid"] == asset["uid"]
    assert again.json()["upload"]["url"] == upload["url"]
    assert upload["offset"] == 0
    assert asset["transferState"] == "pending"
    assert halfway["upload"]["offset"] == 1000
    assert halfway["transferState"] == "active"
    assert halfway["transferProgress"] == pytest.approx(1000 / len(frame))
    assert done["upload"] is None
    assert done["wcsBox"]["center"] == pytest.approx([120.0, 30.0])
    assert copy.json()["upload"] is None
    assert asset["uid"] in [each["uid"] for each in page["items"]]
    assert shown["uid"] == asset["uid"]
    assert shown["installId"] == str(node.site.install_id)
    assert {each["uid"] for each in listed["items"]} == {asset["uid"], copy.json()["asset"]["uid"]}
    assert read.content == frame
    assert read.headers["content-type"] == "image/fits"
    assert read.headers["repr-digest"] == f"sha-256=:{base64.b64encode(sha256(frame).digest()).decode()}:"
    assert read.headers["content-disposition"] == "attachment; filename*=UTF-8''m13%20%E2%80%93%20%C2%BD.fits"
    assert read.headers["content-security-policy"].startswith("sandbox")
    assert read.headers["x-skygw-source"] == "hub"


async def test_what_is_no_fits_is_kept_as_failed_and_costs_nobody_else_anything(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    content = a_frame()[:-1]
    async with observing(postgres, tmp_path) as (world, node):
        declared = (await node.declare(content, **FITS)).json()
        await node.send(declared["upload"]["url"], content)
        failed = await node.settled(declared["asset"]["uid"])
        kept = await world.ask("GET", f"/internal/assets/{failed['uid']}/content")
        as_text = await node.verified(content + b"!", contentType="text/plain")
        good = await node.verified(a_frame(), **FITS)

    assert failed["transferState"] == "failed"
    assert failed["transferError"] == "It is cut off: HDU 0 ends at byte 5760, the file has 5759."
    assert kept.content == content
    assert kept.headers["cache-control"] == "no-store"
    assert as_text["wcsBox"] is None
    assert good["wcsBox"] is not None


async def test_another_installation_and_other_scopes_get_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    frame = a_frame()
    async with observing(postgres, tmp_path) as (world, node):
        stranger = Node(world, await ObservingSite().provision(world.owner_url))
        declared = (await node.declare(frame)).json()
        uid, key, url = declared["asset"]["uid"], declared["asset"]["id"], declared["upload"]["url"]
        refused = [
            await stranger.ask("GET", f"/v1/nodes/me/assets/{uid}"),
            await stranger.ask("GET", f"/v1/nodes/me/assets/{key}"),
            await stranger.ask("GET", f"/v1/nodes/me/assets/{uuid4()}"),
            await stranger.ask("GET", "/v1/nodes/me/assets/nothing"),
            await stranger.send(url, frame),
            await stranger.ask("DELETE", url, headers=TUS),
            await stranger.declare(frame, taskUid=str(node.site.task_uid)),
            await stranger.declare(frame, observationUid=str(node.site.observation_uid)),
            await stranger.declare(frame, instrumentUid=str(node.site.instrument_uid)),
        ]
        theirs = (await stranger.ask("GET", "/v1/nodes/me/assets")).json()
        await node.send(url, frame)
        await node.settled(uid)
        same_bytes = await stranger.declare(frame)
        weak = {"authorization": f"Bearer {world.service_token('nodes:read')}"}
        forbidden = [
            await world.ask("GET", "/internal/assets", headers=weak),
            await world.ask("GET", f"/internal/assets/{uid}", headers=weak),
            await world.ask("GET", f"/internal/assets/{uid}/content", headers=weak),
            await world.ask("POST", f"/internal/assets/{uid}/transfer", headers=weak),
        ]

    assert [answer.status_code for answer in refused] == [404] * len(refused)
    assert theirs["items"] == []
    # That these bytes are here is nobody's business.
    assert same_bytes.status_code == 201
    assert same_bytes.json()["upload"]["offset"] == 0
    assert [answer.status_code for answer in forbidden] == [403] * 4


async def test_a_part_of_an_asset_is_read_as_http_has_it(postgres: PostgresServer, tmp_path: Path) -> None:
    frame = a_frame()
    size, etag = len(frame), f'"{sha256(frame).hexdigest()}"'
    async with observing(postgres, tmp_path) as (world, node):
        path = f"/internal/assets/{(await node.verified(frame))['uid']}/content"

        async def read(method: str = "GET", **headers: str) -> httpx.Response:
            return await world.ask(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})

        part = await read(range="bytes=100-199")
        last = await read(range="bytes=-10")
        beyond = await read(range=f"bytes={size}-")
        several = await read(range="bytes=0-1,5-6")
        same = await read(range="bytes=0-0", if_range=etag)
        other = await read(range="bytes=0-0", if_range='"other"')
        known = await read(if_none_match=f'"x", W/{etag}')
        failed = await read(if_match='"other"')
        head = await read("HEAD", range="bytes=0-9")
        post = await read("POST")
        asked = await world.ask("GET", path + "?offset=1")

    assert (part.status_code, part.content) == (206, frame[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{size}"
    assert part.headers["etag"] == etag
    assert last.content == frame[-10:]
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"
    assert (several.status_code, several.content) == (200, frame)
    assert (same.status_code, same.content) == (206, frame[:1])
    assert (other.status_code, other.content) == (200, frame)
    assert (known.status_code, known.content) == (304, b"")
    assert failed.status_code == 412
    assert (head.status_code, head.content, head.headers["content-length"]) == (206, b"", "10")
    assert post.status_code == 405
    assert asked.status_code == 422


async def test_what_stays_at_its_node_is_read_there_and_sent_when_asked_for(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    frame = a_frame()
    async with observing(postgres, tmp_path) as (world, node):
        site = Site(node.site.install_id, node.site.telescope_uid)
        world.site = site
        declared = await node.declare(frame, isRemote=True)
        asset = declared.json()["asset"]
        path = f"/internal/assets/{asset['uid']}"
        away = await world.ask("GET", f"{path}/content")
        asked_in_vain = await world.ask("POST", f"{path}/transfer")
        async with world.node() as socket, trio.open_nursery() as nursery:
            answers: dict[str, httpx.Response] = {}

            async def get(name: str, method: str, path: str, **headers: str) -> None:
                answers[name] = await world.ask(method, path, headers=headers)

            async def is_cut() -> None:
                with pytest.raises(httpx.ReadError):
                    await world.ask("GET", f"{path}/content")
                cut.set()

            cut = trio.Event()

            async def serve(payload: bytes) -> DirectRequest:
                request = await socket.hear(DirectRequest)
                await socket.answer(request, payload, piece=1000)
                return request

            nursery.start_soon(get, "whole", "GET", f"{path}/content")
            whole = await serve(frame)
            nursery.start_soon(lambda: get("part", "GET", f"{path}/content", range="bytes=10-19"))
            part = await serve(frame[10:20])
            nursery.start_soon(get, "short", "GET", f"{path}/content")
            await serve(frame[:-1])
            nursery.start_soon(is_cut)
            await serve(frame[:-1] + b"!")
            with trio.fail_after(PATIENCE_S):
                await cut.wait()
            nursery.start_soon(get, "transfer", "POST", f"{path}/transfer")
            asked = await serve(b"{}")
        upload = (await node.ask("GET", f"/v1/nodes/me/assets/{asset['uid']}")).json()["upload"]
        await node.send(upload["url"], frame)
        done = await node.settled(asset["uid"])
        again = await world.ask("POST", f"{path}/transfer")
        here = await world.ask("GET", f"{path}/content")

    assert declared.status_code == 201
    assert declared.json()["upload"] is None
    assert (away.status_code, away.json()["code"]) == (503, "node_offline")
    assert (asked_in_vain.status_code, asked_in_vain.json()["code"]) == (503, "node_offline")
    assert answers["whole"].content == frame
    assert answers["whole"].headers["x-skygw-source"] == "node"
    assert answers["whole"].headers["cache-control"] == "no-store"
    assert (whole.operation, whole.offset, whole.length) == ("asset.read", 0, len(frame))
    assert whole.if_digest == sha256(frame).hexdigest()
    assert (answers["part"].status_code, answers["part"].content) == (206, frame[10:20])
    assert (part.offset, part.length) == (10, 10)
    assert answers["short"].json()["code"] == "bad_response"
    assert cut.is_set()
    assert answers["transfer"].status_code == 202
    assert asked.operation == "asset.upload"
    assert asked.params.value == {"asset_uid": asset["uid"]}
    assert not done["isRemote"]
    assert again.status_code == 200
    assert (here.content, here.headers["x-skygw-source"]) == (frame, "hub")


async def test_what_had_arrived_when_a_gateway_ended_is_verified_by_the_next(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    frame = a_frame()
    site = await ObservingSite().provision(postgres.owner_url)
    upload = UploadUid(uuid4())
    files = LocalStore(tmp_path / FILES_FOLDER)
    await files.create(upload)
    async with files.append(upload, offset=0) as writer:
        await writer.write(frame)
        await writer.flush(is_last=True)
    async with open_loop_and_database(postgres.gateway_url) as database:
        digest = sha256(frame).hexdigest()
        what = Declaration(
            site.observation_uid,
            site.instrument_uid,
            AssetRole.SCIENCE_LIGHT,
            "m13.fits",
            len(frame),
            digest,
            "application/octet-stream",
            site.task_uid,
        )
        new = NewUpload(upload, site.install_id, len(frame), digest, len(frame), datetime.now(UTC) + timedelta(hours=1))
        quota = Quota(bytes=10**9, uploads=10)
        declared = await PgAssets(database).declare(site.install_id, site.telescopes, what, new, quota=quota)
        assert await PgUploads(database).complete(upload, 0, size=len(frame), sha256=digest)

    async with gateway(postgres, tmp_path) as world:
        done = await Node(world, site).settled(str(declared.asset.uid))
    assert done["transferState"] == "completed"
    assert not (tmp_path / FILES_FOLDER / "parts" / str(upload)).exists()


FIELDS: dict[str, list[Any]] = {
    "taskUid": ["", 7, "00000000"],
    "observationUid": [None, "x", [], {}],
    "instrumentUid": [None, True, "../../etc"],
    "role": [None, "science_light", "", 1],
    "fileName": [None, "", "a/b", "a\\b", "..", ".", "a\u0000", "a\nb", "\u202ea", "x" * 251, 1],
    "size": [None, 0, -1, 1.5, "7", 2**63, 10**40],
    "sha256": [None, "", "0" * 63, "A" * 64, "0" * 65, 0],
    "contentType": [None, "", "image", "image/fits; charset=x", "a b/c", "x/" + "y" * 100, "image/fits\r\nX: y"],
    "isRemote": ["true", 1, None],
    "uploadUid": ["x"],
    "task_uid": [str(uuid4())],
}


async def test_every_field_of_a_declaration_is_looked_at(postgres: PostgresServer, tmp_path: Path) -> None:
    frame = a_frame()
    async with observing(postgres, tmp_path) as (world, node):
        answers = {
            f"{name}={value!r}": (await node.declare(frame, **{name: value})).status_code
            for name, values in FIELDS.items()
            for value in values
        }
        raw = [
            (await node.ask("POST", "/v1/nodes/me/assets", content=content)).status_code
            for content in (b"", b"[]", b"{", b"\xff", b'{"size":NaN}')
        ]
        queries = [
            (await world.ask("GET", f"/internal/assets?{query}")).status_code
            for query in (
                "taskUid=x",
                "role=LIGHT",
                "transferState=done",
                "createdAfter=yesterday",
                "createdAfter=0001-01-01T00:00:00%2B23:59",
                "page=0",
                "size=1000000",
                "whatever=1",
            )
        ]
        odd = [
            (await world.ask("GET", f"/internal/assets/{text}")).status_code
            for text in ("-1", "99999999999", "2147483648", "%00", "x" * 500, "%F0%9F%98%80")
        ]
        none = (await node.ask("GET", "/v1/nodes/me/assets")).json()

    assert {name: status for name, status in answers.items() if status != 422} == {}
    assert raw == [422] * 5
    assert queries == [422] * 8
    assert odd == [404] * 6
    assert none["total"] == 0


async def test_a_hub_that_is_told_too_much_says_what_it_may_be_told(postgres: PostgresServer, tmp_path: Path) -> None:
    frame = a_frame()
    async with observing(postgres, tmp_path, upload_quota=1, max_upload_bytes=2**20) as (_, node):
        first = await node.declare(frame)
        second = await node.declare(a_frame())
        too_large = await node.declare(frame, size=2**20 + 1)
        stays_there = await node.declare(frame, size=2**20 + 1, isRemote=True)
        other_type = await node.declare(frame, contentType="text/plain")
        other_task = await node.declare(frame, taskUid=str(uuid4()))

    assert first.status_code == 201
    assert (second.status_code, second.json()["code"]) == (413, "quota_exceeded")
    assert too_large.status_code == 413
    assert stays_there.status_code == 201
    assert (other_type.status_code, other_type.json()["code"]) == (409, "id_reused")
    assert other_type.json()["details"]["differs"] == ["contentType"]
    assert other_task.status_code == 404
