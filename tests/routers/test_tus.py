"""tus 1.0.0 on a real listener: each requirement of the protocol and of the extensions that are announced."""

from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha1, sha256
from pathlib import Path

import pytest

from skygw.observing.byte_store import MIB
from skygw.observing.upload_store import UploadState
from skygw.routers.upload_dialects import UPLOADS_PATH
from tests.routers.upload_doors import RULES, Answer, Doors, Field, upload_doors
from tests.storage.contract import pattern

V1: Field = ("Tus-Resumable", "1.0.0")
OCTETS: Field = ("Content-Type", "application/offset+octet-stream")


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with upload_doors(tmp_path / "files") as doors:
        yield doors


async def created(doors: Doors, size: int, *fields: Field) -> str:
    answer = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", str(size)), *fields)
    assert answer.status == 201
    return answer.headers["location"]


async def patch(
    doors: Doors, path: str, offset: int | str, body: bytes, *fields: Field, chunked: bool = False
) -> Answer:
    said = (V1, OCTETS, ("Upload-Offset", str(offset)), *fields)
    return await doors.ask("PATCH", path, *said, body=body, chunked=chunked)


async def offset_of(doors: Doors, path: str) -> int:
    answer = await doors.ask("HEAD", path, V1)
    assert answer.status == 200
    return int(answer.headers["upload-offset"])


def checksum(algorithm: str, data: bytes) -> Field:
    digest = sha1(data, usedforsecurity=False) if algorithm == "sha1" else sha256(data)
    return "Upload-Checksum", f"{algorithm} {b64encode(digest.digest()).decode()}"


async def test_options_says_what_is_spoken(doors: Doors) -> None:
    for path in (UPLOADS_PATH, f"{UPLOADS_PATH}/anything"):
        answer = await doors.ask("OPTIONS", path, ("Tus-Resumable", "9.9"), token=None)
        assert answer.status == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-extension"] == "creation,creation-with-upload,checksum,expiration,termination"
        assert answer.headers["tus-max-size"] == str(RULES.max_bytes)
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"


async def test_an_upload_is_created_appended_to_and_complete(doors: Doors) -> None:
    data = pattern(3 * MIB + 1)
    path = await created(doors, len(data))
    head = await doors.ask("HEAD", path, V1)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("0", str(len(data)))
    assert head.headers["cache-control"] == "no-store"
    first = await patch(doors, path, 0, data[:MIB])
    assert (first.status, first.headers["upload-offset"], first.headers["tus-resumable"]) == (204, str(MIB), "1.0.0")
    last = await patch(doors, path, MIB, data[MIB:], chunked=True)
    assert (last.status, last.headers["upload-offset"]) == (204, str(len(data)))
    assert await offset_of(doors, path) == len(data)
    assert await doors.content(path) == data
    assert [upload.sha256 for upload in doors.completed] == [sha256(data).hexdigest()]


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
async def test_another_version_is_refused_with_the_ones_there_are(doors: Doors, method: str) -> None:
    path = UPLOADS_PATH if method == "POST" else await created(doors, 10)
    answer = await doors.ask(method, path, ("Tus-Resumable", "0.2.2"), ("Upload-Length", "5"))
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")
    assert len(doors.store.rows) == (0 if method == "POST" else 1)


async def test_every_answer_says_the_version(doors: Doors) -> None:
    path = await created(doors, 10)
    answers = [
        await doors.ask("HEAD", path, V1),
        await doors.ask("GET", path, V1),
        await patch(doors, path, 7, b"abc"),
        await patch(doors, path, 0, b"abc"),
        await doors.ask("DELETE", path, V1),
        await doors.ask("DELETE", path, V1),
    ]
    assert [answer.status for answer in answers] == [200, 405, 409, 204, 204, 404]
    assert {answer.headers["tus-resumable"] for answer in answers} == {"1.0.0"}


async def test_another_offset_is_a_conflict_and_changes_nothing(doors: Doors) -> None:
    path = await created(doors, 100)
    await patch(doors, path, 0, b"x" * 10)
    for offset in (0, 9, 11, 100, 10**14):
        answer = await patch(doors, path, offset, b"y")
        assert (answer.status, answer.problem()["expected-offset"]) == (409, 10)
    assert await offset_of(doors, path) == 10
    assert doors.on_disk(path) == b"x" * 10


@pytest.mark.parametrize("offset", ["", "-1", "+1", "1.0", "0x10", "１", "1e3", "9" * 16, "abc", "1, 1"])
async def test_what_is_no_offset_is_refused(doors: Doors, offset: str) -> None:
    path = await created(doors, 100)
    said = ("Upload-Offset", offset.encode().decode("latin-1"))
    answer = await doors.ask("PATCH", path, V1, OCTETS, said, body=b"y")
    assert (answer.status, answer.problem()["code"]) == (400, "invalid")
    assert await offset_of(doors, path) == 0


async def test_a_header_that_stands_twice_is_refused(doors: Doors) -> None:
    path = await created(doors, 100)
    said = ("Upload-Offset", "0")
    assert (await doors.ask("PATCH", path, V1, OCTETS, said, said, body=b"y")).status == 400
    assert (await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", "1"), ("Upload-Length", "2"))).status == 400


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "application/partial-upload", "text/plain"])
async def test_a_body_of_another_type_is_refused(doors: Doors, kind: str | None) -> None:
    path = await created(doors, 100)
    fields = [] if kind is None else [("Content-Type", kind)]
    answer = await doors.ask("PATCH", path, V1, *fields, ("Upload-Offset", "0"), body=b"y")
    assert answer.status == 415
    assert await offset_of(doors, path) == 0


@pytest.mark.parametrize("length", [None, "", "-1", "1.5", "many", "9" * 16])
async def test_an_upload_without_a_length_is_not_created(doors: Doors, length: str | None) -> None:
    fields = [] if length is None else [("Upload-Length", length)]
    assert (await doors.ask("POST", UPLOADS_PATH, V1, *fields)).status == 400
    deferred = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Defer-Length", "1"))
    assert deferred.status == 400
    assert "creation-defer-length" in deferred.problem()["detail"]
    assert doors.store.rows == {}


async def test_more_than_the_announced_size_is_refused(doors: Doors) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", str(RULES.max_bytes + 1)))
    assert (answer.status, answer.problem()["code"]) == (413, "invalid")


async def test_an_empty_upload_is_complete_when_it_is_created(doors: Doors) -> None:
    path = await created(doors, 0)
    assert doors.upload(path).state is UploadState.COMPLETE
    assert await doors.content(path) == b""


async def test_metadata_is_told_again_as_it_was_written(doors: Doors) -> None:
    text = "filename bTEzLmZpdHM=,is_raw,note "
    path = await created(doors, 10, ("Upload-Metadata", text))
    assert (await doors.ask("HEAD", path, V1)).headers["upload-metadata"] == text.strip()
    assert "upload-metadata" not in (await doors.ask("HEAD", await created(doors, 10), V1)).headers


@pytest.mark.parametrize(
    "text",
    [",", "a b c", "a !!!", "a YQ==,a Yg==", "a YQ", "ключ YQ==".encode().decode("latin-1"), "a " + "YWFh" * 2_000],
)
async def test_metadata_that_is_none_is_refused(doors: Doors, text: str) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", "1"), ("Upload-Metadata", text))
    assert answer.status == 400
    assert doors.store.rows == {}


async def test_creation_can_bring_the_first_bytes_or_all(doors: Doors) -> None:
    data = pattern(MIB)
    for size, expected in ((len(data), UploadState.COMPLETE), (len(data) + 1, UploadState.OPEN)):
        answer = await doors.ask("POST", UPLOADS_PATH, V1, OCTETS, ("Upload-Length", str(size)), body=data)
        assert (answer.status, answer.headers["upload-offset"]) == (201, str(len(data)))
        assert doors.upload(answer.headers["location"]).state is expected
    wrong = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", "9"), body=b"x")
    assert wrong.status == 415


async def test_creation_whose_bytes_are_refused_still_says_where_to_go_on(doors: Doors) -> None:
    said = (V1, OCTETS, ("Upload-Length", "3"), checksum("sha1", b"abc"))
    answer = await doors.ask("POST", UPLOADS_PATH, *said, body=b"abX")
    assert answer.status == 460
    assert await offset_of(doors, answer.headers["location"]) == 0


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_body_that_is_not_what_its_checksum_says_is_not_appended(doors: Doors, algorithm: str) -> None:
    data = pattern(2 * MIB)
    path = await created(doors, len(data))
    bad = await patch(doors, path, 0, data[:MIB], checksum(algorithm, b"else"))
    assert (bad.status, bad.kind()) == (460, "digest-mismatching-values")
    assert await offset_of(doors, path) == 0
    good = await patch(doors, path, 0, data, checksum(algorithm, data))
    assert good.status == 204
    assert await doors.content(path) == data


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("md5 kAFQmDzST7DWlj99KOF/cg==", "digest-unsupported-algorithms"),
        ("SHA1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "digest-unsupported-algorithms"),
        ("", "digest-unsupported-algorithms"),
        ("sha1", "digest-invalid-values"),
        ("sha1 abc", "digest-invalid-values"),
        ("sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0= more", "digest-invalid-values"),
        ("sha256 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "digest-invalid-values"),
    ],
)
async def test_a_checksum_that_cannot_be_checked_is_refused(doors: Doors, text: str, kind: str) -> None:
    path = await created(doors, 3)
    answer = await patch(doors, path, 0, b"abc", ("Upload-Checksum", text))
    assert (answer.status, answer.kind()) == (400, kind)
    assert await offset_of(doors, path) == 0


async def test_a_body_that_would_be_too_long_is_refused_and_costs_nothing(doors: Doors) -> None:
    path = await created(doors, 10)
    answer = await patch(doors, path, 0, b"x" * 11)
    assert (answer.status, answer.kind()) == (413, "inconsistent-upload-length")
    assert (await patch(doors, path, 0, b"y" * 10)).status == 204
    assert await doors.content(path) == b"y" * 10


async def test_more_bytes_than_the_length_fail_the_upload(doors: Doors) -> None:
    path = await created(doors, 10)
    assert (await patch(doors, path, 0, b"x" * 11, chunked=True)).status == 413
    for answer in (await doors.ask("HEAD", path, V1), await patch(doors, path, 0, b"x")):
        assert answer.status == 410
        assert "upload-offset" not in answer.headers
    assert (await doors.ask("DELETE", path, V1)).status == 204


async def test_it_is_said_until_when_an_upload_is_kept_and_then_it_is_gone(doors: Doors) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", "10"))
    path = answer.headers["location"]
    first = parsedate_to_datetime(answer.headers["upload-expires"])
    doors.late = timedelta(minutes=50)
    later = parsedate_to_datetime((await patch(doors, path, 0, b"12345")).headers["upload-expires"])
    assert timedelta(minutes=49) < later - first < timedelta(minutes=52)
    doors.late = timedelta(minutes=120)
    assert (await doors.ask("HEAD", path, V1)).status == 404
    assert (await patch(doors, path, 5, b"12345")).status == 404
    assert await doors.uploads.remove_expired(limit=10) == 1
    assert list((doors.folder / "parts").iterdir()) == []


async def test_an_upload_that_is_given_up_is_gone(doors: Doors) -> None:
    path = await created(doors, 10)
    await patch(doors, path, 0, b"12345")
    assert (await doors.ask("DELETE", path, V1)).status == 204
    statuses = [(await doors.ask(method, path, V1)).status for method in ("HEAD", "DELETE")]
    assert [*statuses, (await patch(doors, path, 5, b"1")).status] == [404, 404, 404]


async def test_a_method_can_be_named_by_a_header(doors: Doors) -> None:
    path = await created(doors, 3)
    said = (V1, OCTETS, ("Upload-Offset", "0"), ("X-HTTP-Method-Override", "PATCH"))
    assert (await doors.ask("POST", path, *said, body=b"abc")).status == 204
    assert await doors.content(path) == b"abc"
    assert (await doors.ask("POST", path, V1, ("X-HTTP-Method-Override", "DELETE"))).status == 204
    for odd in ("patch", "GET /", ""):
        assert (await doors.ask("POST", path, V1, ("X-HTTP-Method-Override", odd))).status == 400


async def test_uploads_cannot_be_put_together(doors: Doors) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V1, ("Upload-Length", "1"), ("Upload-Concat", "partial"))
    assert answer.status == 400
