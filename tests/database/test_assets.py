"""Assets and their uploads as the database keeps them, with the rights the gateway has."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import trio

from skygw.database.assets import PgAssets
from skygw.database.pool import Database, open_loop_and_database
from skygw.database.uploads import PgUploads
from skygw.errors import IdReused, Invalid, NotFound, QuotaExceeded, StoreFailed
from skygw.fits.finding import FitsFinding, SkyBox
from skygw.ids import AssetUid, TaskUid, UploadUid
from skygw.observing.assets import Asset, AssetQuery, AssetRole, Declaration, Declared, TransferState
from skygw.observing.upload_store import NewUpload, Quota, Upload
from skygw.observing.verification import Arrived
from tests.fakes.observing_records import ObservingSite
from tests.fakes.postgres import PostgresServer

ROOM = Quota(bytes=10_000, uploads=10)
LATER = datetime.now(UTC) + timedelta(days=1)
BOX = SkyBox((120.0, 30.0), ((121.0, 29.0), (119.0, 29.0), (119.0, 31.0), (121.0, 31.0)))

END_TASK = "UPDATE observation_task SET status = 'completed' WHERE uid = %s"
INSERT_RESULT = """
    WITH result AS (
        INSERT INTO observation_result (uid, observation_id)
        SELECT %s, id FROM observation WHERE uid = %s
        RETURNING id
    )
    INSERT INTO observation_result_task (result_id, task_id)
    SELECT result.id, task.id FROM result, observation_task AS task WHERE task.uid = %s
    RETURNING result_id
"""


@pytest.fixture
async def site(postgres: PostgresServer) -> ObservingSite:
    return await ObservingSite().provision(postgres.owner_url)


class Rooms:
    """The two stores and one installation, with what its declarations have in common."""

    def __init__(self, database: Database, site: ObservingSite) -> None:
        self.assets = PgAssets(database)
        self.uploads = PgUploads(database)
        self.site = site
        self.frame = uuid4().bytes[:5]
        """Nobody else's: the database is that of all tests."""

    def says(self, content: bytes | None = None, **other: Any) -> Declaration:
        content = self.frame if content is None else content
        return Declaration(
            **{
                "observation_uid": self.site.observation_uid,
                "instrument_uid": self.site.instrument_uid,
                "task_uid": self.site.task_uid,
                "role": AssetRole.SCIENCE_LIGHT,
                "file_name": "m13.fits",
                "size": len(content),
                "sha256": sha256(content).hexdigest(),
                "content_type": "image/fits",
                **other,
            }
        )

    async def declare(self, what: Declaration, *, quota: Quota = ROOM) -> Declared:
        return await self.assets.declare(
            self.site.install_id, self.site.telescopes, what, self.new_upload(what), quota=quota
        )

    def new_upload(self, what: Declaration, *, expires_at: datetime = LATER) -> NewUpload:
        uid = UploadUid(uuid4())
        return NewUpload(uid, self.site.install_id, what.size, what.sha256, what.size, expires_at)

    async def send(self, asset: Asset) -> Upload:
        """All of its bytes."""
        assert asset.upload is not None
        claimed = await self.uploads.claim(asset.install_id, asset.upload.uid)
        assert claimed is not None
        sent = asset.declared
        assert await self.uploads.complete(claimed.uid, claimed.writer, size=sent.size, sha256=sent.sha256)
        return claimed

    async def arrived(self, uid: AssetUid) -> Arrived:
        [found] = [each for each in await self.assets.arrived(after=None, limit=1000) if each.uid == uid]
        return found

    async def verified(self, what: Declaration) -> Asset:
        asset = (await self.declare(what)).asset
        await self.send(asset)
        assert await self.assets.settle(await self.arrived(asset.uid), FitsFinding(None, BOX))
        return await self.now(asset)

    async def now(self, asset: Asset) -> Asset:
        found = await self.assets.find(str(asset.uid))
        assert found is not None
        return found


@pytest.fixture
def rooms(database: Database, site: ObservingSite) -> Rooms:
    return Rooms(database, site)


async def test_the_same_declaration_is_the_same_asset_with_the_same_upload(rooms: Rooms) -> None:
    first = await rooms.declare(rooms.says())
    again = await rooms.declare(rooms.says())

    assert first.is_new
    assert not again.is_new
    assert again.asset == first.asset
    assert first.asset.state is TransferState.PENDING
    assert first.asset.upload is not None
    assert first.asset.upload.offset == 0


async def test_many_who_declare_the_same_at_once_get_one_asset(rooms: Rooms) -> None:
    found: set[UUID] = set()

    async def declare() -> None:
        found.add((await rooms.declare(rooms.says())).asset.uid)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(declare)

    assert len(found) == 1


@pytest.mark.parametrize(
    "other",
    [{"file_name": "m14.fits"}, {"role": AssetRole.DARK}, {"task_uid": None}, {"sha256": "0" * 64}, {"size": 6}],
)
async def test_what_is_declared_otherwise_is_another_asset(rooms: Rooms, other: dict[str, Any]) -> None:
    first = await rooms.declare(rooms.says())
    second = await rooms.declare(replace(rooms.says(), **other))
    assert second.is_new
    assert second.asset.uid != first.asset.uid


async def test_a_file_cannot_become_of_another_type(rooms: Rooms) -> None:
    await rooms.declare(rooms.says())
    with pytest.raises(IdReused) as refused:
        await rooms.declare(rooms.says(content_type="text/plain"))
    assert refused.value.details["differs"] == ["contentType"]


async def test_a_digest_that_is_known_cannot_have_another_size(rooms: Rooms) -> None:
    await rooms.verified(rooms.says())
    with pytest.raises(IdReused, match="has 5 bytes, and not 6"):
        await rooms.declare(rooms.says(size=6, file_name="other.fits"))


async def test_what_is_of_another_installation_does_not_exist(
    rooms: Rooms, database: Database, postgres: PostgresServer
) -> None:
    other = Rooms(database, await ObservingSite().provision(postgres.owner_url))
    mine = (await rooms.declare(rooms.says())).asset

    for stolen in (
        {"observation_uid": other.site.observation_uid},
        {"instrument_uid": other.site.instrument_uid},
        {"task_uid": other.site.task_uid},
        {"task_uid": uuid4()},
    ):
        with pytest.raises(NotFound):
            await rooms.declare(rooms.says(**stolen))
    assert await other.assets.find(str(mine.uid), install_id=other.site.install_id) is None
    assert await other.assets.find(str(mine.id), install_id=other.site.install_id) is None
    assert await other.assets.page(AssetQuery(1, 50, install_id=other.site.install_id)) == ([], 0)
    assert mine.upload is not None
    assert await other.uploads.find(other.site.install_id, mine.upload.uid) is None
    assert await other.uploads.claim(other.site.install_id, mine.upload.uid) is None
    assert not await other.uploads.forget(other.site.install_id, mine.upload.uid)


async def test_a_task_that_is_of_another_observation_is_no_task_of_it(rooms: Rooms, postgres: PostgresServer) -> None:
    other = replace(rooms.site, observation_uid=uuid4(), task_uid=TaskUid(uuid4()))
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute("INSERT INTO observation (uid) VALUES (%s)", [other.observation_uid])
    other.add_task(postgres.owner_url, other.task_uid)
    with pytest.raises(Invalid, match="of another observation"):
        await rooms.declare(rooms.says(task_uid=other.task_uid))


async def test_a_quota_that_is_used_up_declares_nothing(rooms: Rooms) -> None:
    await rooms.declare(rooms.says())
    with pytest.raises(QuotaExceeded) as refused:
        await rooms.declare(rooms.says(b"f" * 9_996))
    assert refused.value.details == {"bytes": 5, "uploads": 1}
    with pytest.raises(QuotaExceeded, match="may have 1 uploads open"):
        await rooms.declare(rooms.says(b"other"), quota=Quota(bytes=10_000, uploads=1))
    assert (await rooms.assets.page(AssetQuery(1, 50, install_id=rooms.site.install_id)))[1] == 1


async def test_what_was_sent_before_need_not_be_sent_again(rooms: Rooms) -> None:
    await rooms.verified(rooms.says())
    second = await rooms.declare(rooms.says(file_name="copy.fits"))

    assert not second.is_to_be_sent
    assert second.asset.state is TransferState.ACTIVE
    waiting = await rooms.arrived(second.asset.uid)
    assert waiting.known == FitsFinding(None)
    assert await rooms.assets.settle(waiting, waiting.known)
    done = await rooms.now(second.asset)
    assert done.state is TransferState.COMPLETED
    assert done.box == {"center": [120.0, 30.0], "corners": [list(corner) for corner in BOX.corners]}


async def test_what_another_installation_has_sent_is_asked_for_as_if_nobody_had_it(
    rooms: Rooms, database: Database, postgres: PostgresServer
) -> None:
    other = Rooms(database, await ObservingSite().provision(postgres.owner_url))
    await rooms.verified(rooms.says())
    declared = await other.declare(other.says(rooms.frame))

    assert declared.is_to_be_sent
    assert not declared.asset.stored
    assert declared.asset.box is None


async def test_bytes_that_came_before_they_were_declared_are_taken_for_it(rooms: Rooms) -> None:
    what = rooms.says()
    upload = await rooms.uploads.create(replace(rooms.new_upload(what), sha256=None), quota=ROOM)
    claimed = await rooms.uploads.claim(rooms.site.install_id, upload.uid)
    assert claimed is not None
    assert await rooms.uploads.complete(upload.uid, claimed.writer, size=what.size, sha256=what.sha256)

    declared = await rooms.declare(what)

    assert not declared.is_to_be_sent
    assert (await rooms.arrived(declared.asset.uid)).upload == upload.uid


async def test_a_remote_asset_has_nothing_to_send_until_it_is_wanted(rooms: Rooms) -> None:
    declared = await rooms.declare(rooms.says(is_remote=True))
    assert not declared.is_to_be_sent
    assert declared.asset.declared.is_remote

    wanted = await rooms.assets.want(declared.asset.uid, rooms.new_upload(rooms.says()), quota=ROOM)
    again = await rooms.assets.want(declared.asset.uid, rooms.new_upload(rooms.says()), quota=ROOM)
    assert wanted is not None
    assert wanted.upload is not None
    assert again == wanted
    assert not (await rooms.declare(rooms.says(is_remote=True))).is_new

    await rooms.send(wanted)
    assert await rooms.assets.settle(await rooms.arrived(wanted.uid), FitsFinding(None))
    assert not (await rooms.now(wanted)).declared.is_remote
    assert (await rooms.assets.want(wanted.uid, rooms.new_upload(rooms.says()), quota=ROOM)) == await rooms.now(wanted)


async def test_an_asset_shows_how_far_its_upload_has_come(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says(b"0123456789"))).asset
    assert asset.upload is not None
    claimed = await rooms.uploads.claim(asset.install_id, asset.upload.uid)
    assert claimed is not None
    assert await rooms.uploads.advance(claimed.uid, claimed.writer, offset=4, size=None, expires_at=LATER)

    shown = await rooms.now(asset)
    assert shown.state is TransferState.ACTIVE
    assert shown.progress == pytest.approx(0.4)
    assert shown.upload is not None
    assert shown.upload.offset == 4
    assert shown.last_attempt is not None


async def test_whoever_lost_the_pen_writes_nothing_down(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    assert asset.upload is not None
    old = await rooms.uploads.claim(asset.install_id, asset.upload.uid)
    new = await rooms.uploads.claim(asset.install_id, asset.upload.uid)
    assert old is not None
    assert new is not None

    assert not await rooms.uploads.advance(old.uid, old.writer, offset=1, size=None, expires_at=LATER)
    assert not await rooms.uploads.complete(old.uid, old.writer, size=5, sha256=rooms.says().sha256)
    assert not await rooms.uploads.fail(old.uid, old.writer, reason="It is over.")
    assert await rooms.uploads.advance(new.uid, new.writer, offset=2, size=None, expires_at=LATER)


async def test_bytes_that_are_not_those_declared_do_not_complete_an_upload(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    assert asset.upload is not None
    claimed = await rooms.uploads.claim(asset.install_id, asset.upload.uid)
    assert claimed is not None
    assert not await rooms.uploads.complete(claimed.uid, claimed.writer, size=5, sha256="0" * 64)
    assert not await rooms.uploads.complete(claimed.uid, claimed.writer, size=6, sha256=rooms.says().sha256)
    assert (await rooms.now(asset)).arrived_at is None


async def test_an_upload_that_failed_fails_its_asset_until_it_is_declared_again(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    assert asset.upload is not None
    claimed = await rooms.uploads.claim(asset.install_id, asset.upload.uid)
    assert claimed is not None
    assert await rooms.uploads.fail(claimed.uid, claimed.writer, reason="It is too long.")

    failed = await rooms.now(asset)
    assert (failed.state, failed.error) == (TransferState.FAILED, "It is too long.")
    again = await rooms.declare(rooms.says())
    assert again.asset.uid == asset.uid
    assert again.asset.state is TransferState.PENDING
    assert again.asset.error is None
    assert again.asset.upload is not None
    assert again.asset.upload.uid != claimed.uid


async def test_a_frame_that_is_no_fits_stays_failed_and_is_kept(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    await rooms.send(asset)
    assert await rooms.assets.settle(await rooms.arrived(asset.uid), FitsFinding("It is cut off."))

    again = await rooms.declare(rooms.says())
    assert not again.is_to_be_sent
    assert (again.asset.state, again.asset.error) == (TransferState.FAILED, "It is cut off.")
    assert again.asset.stored
    other = (await rooms.declare(rooms.says(file_name="copy.fits"))).asset
    assert (await rooms.arrived(other.uid)).known == FitsFinding("It is cut off.")


async def test_an_asset_is_verified_once_with_its_event_and_what_it_fulfils(
    rooms: Rooms, site: ObservingSite, postgres: PostgresServer
) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute(END_TASK, [site.task_uid])
        result = connection.execute(INSERT_RESULT, [uuid4(), site.observation_uid, site.task_uid]).fetchone()
        connection.execute("INSERT INTO skygw.task_asset VALUES (%s, %s)", [site.task_uid, asset.uid])
    await rooms.send(asset)
    waiting = await rooms.arrived(asset.uid)

    assert await rooms.assets.settle(waiting, FitsFinding(None, BOX))
    assert not await rooms.assets.settle(waiting, FitsFinding(None, BOX))

    assert result is not None
    with psycopg.connect(postgres.owner_url) as connection:
        fulfilled = connection.execute(
            "SELECT fulfillment_status, fulfilled_on IS NOT NULL FROM observation_result WHERE id = %s", result
        ).fetchone()
    assert fulfilled == ("fulfilled", True)
    with psycopg.connect(postgres.owner_url) as connection:
        events = connection.execute(
            "SELECT data, telescope_uid FROM skygw.log WHERE stream = 'asset' AND install_id = %s", [site.install_id]
        ).fetchall()
    [(data, telescope_uid)] = events
    assert telescope_uid == site.telescope_uid
    assert json.loads(data) == {
        "uid": str(asset.uid),
        "task_uid": str(site.task_uid),
        "role": "SCIENCE_LIGHT",
        "sha256": asset.declared.sha256,
        "content_url": f"/internal/assets/{asset.uid}/content",
        "wcs_box": {"center": [120.0, 30.0], "corners": [list(corner) for corner in BOX.corners]},
    }


async def test_when_what_it_fulfils_cannot_be_written_nothing_is_verified(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    owner_url, gateway_url = await trio.to_thread.run_sync(postgres.new_database)
    site = await ObservingSite().provision(owner_url)
    with psycopg.connect(owner_url) as connection:
        connection.execute("REVOKE UPDATE (fulfillment_status, fulfilled_on) ON observation_result FROM skynet_gateway")
    async with open_loop_and_database(gateway_url) as database:
        rooms = Rooms(database, site)
        asset = (await rooms.declare(rooms.says())).asset
        await rooms.send(asset)
        with pytest.raises(StoreFailed):
            await rooms.assets.settle(await rooms.arrived(asset.uid), FitsFinding(None))
        assert (await rooms.now(asset)).verified_at is None
        assert not (await rooms.now(asset)).stored
    caplog.clear()


async def test_bytes_that_were_lost_are_wanted_again(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    await rooms.send(asset)
    await rooms.assets.lost(await rooms.arrived(asset.uid), "They are gone.")
    assert (await rooms.now(asset)).state is TransferState.FAILED
    assert (await rooms.declare(rooms.says())).is_to_be_sent


async def test_pages_hold_what_fits_and_nothing_else(rooms: Rooms, database: Database) -> None:
    light = (await rooms.declare(rooms.says(b"light"))).asset
    dark = (await rooms.declare(rooms.says(b"dark", role=AssetRole.DARK, task_uid=None))).asset
    result = uuid4()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO skygw.result_asset (result_uid, task_uid, asset_uid) VALUES ($1, $2, $3)",
            result,
            rooms.site.task_uid,
            light.uid,
        )

    async def found(**wanted: Any) -> list[UUID]:
        query = AssetQuery(**{"page": 1, "size": 50, "install_id": rooms.site.install_id, **wanted})
        page, total = await rooms.assets.page(query)
        assert total >= len(page)
        return [asset.uid for asset in page]

    assert await found() == [dark.uid, light.uid]
    assert await found(task_uid=rooms.site.task_uid) == [light.uid]
    assert await found(install_id=None, result_uid=result) == [light.uid]
    assert await found(install_id=None, observation_uid=rooms.site.observation_uid) == [dark.uid, light.uid]
    assert await found(role=AssetRole.DARK) == [dark.uid]
    assert await found(state=TransferState.COMPLETED) == []
    assert await found(created_after=light.declared_at) == [dark.uid]
    assert await found(page=2, size=1) == [light.uid]


async def test_only_what_nobody_names_expires(rooms: Rooms) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)

    async def declared(content: bytes, **other: Any) -> Asset:
        what = rooms.says(content, **other)
        upload = rooms.new_upload(what, expires_at=past)
        site = rooms.site
        return (await rooms.assets.declare(site.install_id, site.telescopes, what, upload, quota=ROOM)).asset

    for_a_task = await declared(b"1")
    for_none = await declared(b"2", task_uid=None)
    arrived = await declared(b"3", task_uid=None)
    await rooms.send(arrived)
    naked = await rooms.uploads.create(rooms.new_upload(rooms.says(b"4"), expires_at=past), quota=ROOM)
    living = await rooms.uploads.create(rooms.new_upload(rooms.says(b"5")), quota=ROOM)
    writer = await rooms.uploads.claim(naked.install_id, naked.uid)
    assert writer is not None

    async def expired() -> set[UploadUid]:
        found = await rooms.uploads.expired(now=datetime.now(UTC), limit=1000)
        return {upload.uid for upload in found if upload.install_id == rooms.site.install_id}

    assert for_none.upload is not None
    assert await expired() == {for_none.upload.uid, naked.uid}
    # The process ended before it removed anything; the next one finds the same.
    assert await expired() == {for_none.upload.uid, naked.uid}
    assert not await rooms.uploads.advance(naked.uid, writer.writer, offset=1, size=None, expires_at=LATER)
    assert (await rooms.now(for_none)).state is TransferState.CANCELED
    for uid in (for_none.upload.uid, naked.uid):
        assert await rooms.uploads.forget(rooms.site.install_id, uid)
    assert await expired() == set()
    assert (await rooms.now(for_a_task)).upload is not None
    assert await rooms.uploads.find(rooms.site.install_id, living.uid) == living
    assert (await rooms.declare(rooms.says(b"2", task_uid=None))).asset.uid == for_none.uid


async def test_an_upload_that_is_given_up_cancels_its_asset(rooms: Rooms) -> None:
    asset = (await rooms.declare(rooms.says())).asset
    assert asset.upload is not None
    assert await rooms.uploads.forget(asset.install_id, asset.upload.uid)
    assert (await rooms.now(asset)).state is TransferState.CANCELED


async def test_uploads_opened_at_once_stay_within_the_quota(rooms: Rooms) -> None:
    opened: list[Upload] = []
    refused: list[QuotaExceeded] = []

    async def create() -> None:
        try:
            opened.append(await rooms.uploads.create(rooms.new_upload(rooms.says(b"f" * 4_000)), quota=ROOM))
        except QuotaExceeded as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(create)

    assert (len(opened), len(refused)) == (2, 4)
