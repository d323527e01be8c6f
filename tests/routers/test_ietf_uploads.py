"""Resumable uploads as the IETF's text has them, on a real listener: docs/uploads.md has the list of them."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256, sha512
from pathlib import Path

import pytest

from skygw.observing.byte_store import MIB
from skygw.observing.upload_store import Quota, UploadState
from skygw.routers.upload_dialects import UPLOADS_PATH
from tests.routers.upload_doors import RULES, Answer, Doors, Field, read_answer, request, upload_doors
from tests.storage.contract import pattern

V8: Field = ("Upload-Draft-Interop-Version", "8")
PARTIAL: Field = ("Content-Type", "application/partial-upload")
LAST: Field = ("Upload-Complete", "?1")
MORE: Field = ("Upload-Complete", "?0")


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with upload_doors(tmp_path / "files") as doors:
        yield doors


async def created(doors: Doors, *fields: Field) -> str:
    answer = await doors.ask("POST", UPLOADS_PATH, V8, MORE, *fields)
    assert answer.status == 201
    return answer.headers["location"]


async def patch(
    doors: Doors, path: str, offset: int | str, body: bytes, *fields: Field, chunked: bool = False
) -> Answer:
    said = (V8, PARTIAL, ("Upload-Offset", str(offset)), *fields)
    return await doors.ask("PATCH", path, *said, body=body, chunked=chunked)


async def head(doors: Doors, path: str) -> Answer:
    return await doors.ask("HEAD", path, V8)


async def offset_of(doors: Doors, path: str) -> int:
    return int((await head(doors, path)).headers["upload-offset"])


def digest(field: str, data: bytes, algorithm: str = "sha-256") -> Field:
    found = sha256(data) if algorithm == "sha-256" else sha512(data)
    return field, f"{algorithm}=:{b64encode(found.digest()).decode()}:"


# 4.1 State


async def test_the_offset_in_an_answer_is_a_promise(doors: Doors) -> None:
    data = pattern(MIB)
    path = await created(doors)
    for end in (1, 1_000, MIB):
        at = await offset_of(doors, path)
        answer = await patch(doors, path, at, data[at:end], MORE)
        assert answer.headers["upload-offset"] == str(end)
        assert doors.on_disk(path)[:end] == data[:end]


@pytest.mark.parametrize("offset", ["", "-1", "1.0", '"1"', "?1", "1 2", "1,1", "0;", "9" * 16, "abc"])
async def test_an_offset_that_is_none_is_as_if_it_were_not_there(doors: Doors, offset: str) -> None:
    path = await created(doors)
    answer = await patch(doors, path, offset, b"x", MORE)
    assert (answer.status, answer.problem()["code"]) == (400, "invalid")
    assert "Upload-Offset must be there" in answer.problem()["detail"]


@pytest.mark.parametrize("offset", ["0;a", '0; note="a b";b=?0', "  0 ", "00"])
async def test_an_offset_may_have_parameters(doors: Doors, offset: str) -> None:
    assert (await patch(doors, await created(doors), offset, b"x", MORE)).status == 204


@pytest.mark.parametrize("value", ["1", "true", "?2", "?", "?1, ?1"])
async def test_a_completeness_that_is_none_is_as_if_it_were_not_there(doors: Doors, value: str) -> None:
    path = await created(doors)
    assert (await patch(doors, path, 0, b"x", ("Upload-Complete", value))).status == 400
    assert (await patch(doors, path, 0, b"x")).status == 400
    assert (await doors.ask("POST", UPLOADS_PATH, V8, ("Upload-Complete", value))).status == 400
    assert len(doors.store.rows) == 1


async def test_nothing_can_be_appended_to_what_is_complete(doors: Doors) -> None:
    path = await created(doors)
    assert (await patch(doors, path, 0, b"all", LAST)).status == 204
    for body, kind in ((b"more", "inconsistent-upload-length"), (b"", "completed-upload")):
        for which in (LAST, MORE):
            answer = await patch(doors, path, 3, body, which)
            assert (answer.status, answer.kind()) == (400, kind)
    assert await doors.content(path) == b"all"


async def test_lost_bytes_deactivate_the_upload(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    path = await created(doors)
    await patch(doors, path, 0, b"x" * 100, MORE)
    (doors.folder / "parts" / path.rpartition("/")[2]).write_bytes(b"")
    assert [(await head(doors, path)).status for _ in range(2)] == [410, 410]
    assert (await patch(doors, path, 0, b"x", MORE)).status == 410
    caplog.clear()


# 4.1.3 Length


async def test_the_length_is_learned_from_either_sign(doors: Doors) -> None:
    said = await created(doors, ("Upload-Length", "10"))
    assert (await head(doors, said)).headers["upload-length"] == "10"
    later = await created(doors)
    assert "upload-length" not in (await head(doors, later)).headers
    await patch(doors, later, 0, b"12345", MORE, ("Upload-Length", "10"))
    assert (await head(doors, later)).headers["upload-length"] == "10"
    done = await patch(doors, later, 5, b"67890", LAST)
    assert done.headers["upload-complete"] == "?1"
    answer = await doors.ask("POST", UPLOADS_PATH, V8, LAST, body=b"1234")
    assert doors.upload(answer.headers["location"]).size == 4


async def test_lengths_that_differ_are_refused_and_nothing_changes(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "10"))
    await patch(doors, path, 0, b"123", MORE)
    lies = [
        await patch(doors, path, 3, b"4", MORE, ("Upload-Length", "11")),
        await patch(doors, path, 3, b"4", LAST),
        await patch(doors, path, 3, b"4567890", LAST, ("Upload-Length", "9")),
        await patch(doors, path, 3, b"45678901", MORE),
        await doors.ask("POST", UPLOADS_PATH, V8, LAST, ("Upload-Length", "5"), body=b"1234"),
    ]
    assert [(answer.status, answer.kind()) for answer in lies] == [(400, "inconsistent-upload-length")] * 5
    assert len(doors.store.rows) == 1
    assert await offset_of(doors, path) == 3


async def test_a_length_that_is_none_is_as_if_it_were_not_there(doors: Doors) -> None:
    for value in ("-1", "1.5", "abc", "9" * 16):
        path = await created(doors, ("Upload-Length", value))
        assert doors.upload(path).size is None


async def test_length_and_offset_do_not_make_it_complete(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "3"))
    answer = await patch(doors, path, 0, b"abc", MORE)
    assert answer.headers["upload-complete"] == "?0"
    assert (await head(doors, path)).headers["upload-complete"] == "?0"
    assert (await patch(doors, path, 3, b"", LAST)).headers["upload-complete"] == "?1"


async def test_a_body_beyond_the_length_deactivates_the_upload_whatever_the_headers_say(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "10"))
    assert (await patch(doors, path, 0, b"x" * 11, MORE, chunked=True)).kind() == "inconsistent-upload-length"
    assert (await head(doors, path)).status == 410


# 4.1.4 Limits


async def test_limits_are_told_at_every_turn(doors: Doors) -> None:
    options = await doors.ask("OPTIONS", UPLOADS_PATH, token=None)
    assert options.headers["accept-patch"] == "application/partial-upload"
    assert options.headers["upload-limit"] == f"max-size={RULES.max_bytes}"
    sized, unsized = await created(doors, ("Upload-Length", "9")), await created(doors)
    for path, most in ((sized, RULES.max_bytes), (unsized, RULES.unsized_max_bytes)):
        limit = re.fullmatch(r"max-size=(\d+), max-age=(\d+)", (await head(doors, path)).headers["upload-limit"])
        assert limit is not None
        assert int(limit[1]) == most
        assert 3_500 < int(limit[2]) <= 3_600


async def test_what_is_too_large_is_refused_with_the_limit(doors: Doors) -> None:
    creation = await doors.ask("POST", UPLOADS_PATH, V8, MORE, ("Upload-Length", str(RULES.max_bytes + 1)))
    path = await created(doors)
    append = await patch(doors, path, 0, b"x", MORE, ("Upload-Length", str(RULES.unsized_max_bytes + 1)))
    for answer in (creation, append):
        assert answer.status == 413
        assert answer.headers["upload-limit"] == f"max-size={RULES.max_bytes}"


async def test_the_quota_of_an_installation_is_told_as_such(tmp_path: Path) -> None:
    async with upload_doors(tmp_path / "files", rules=replace(RULES, quota=Quota(bytes=100, uploads=5))) as doors:
        await created(doors, ("Upload-Length", "60"))
        answer = await doors.ask("POST", UPLOADS_PATH, V8, MORE, ("Upload-Length", "41"))
        assert (answer.status, answer.problem()["code"]) == (413, "quota_exceeded")
        assert answer.problem()["details"] == {"bytes": 60, "uploads": 1}
        assert "upload-limit" in answer.headers


# 4.2 Creation


async def test_an_upload_can_be_made_in_one_request(doors: Doors) -> None:
    data = pattern(2 * MIB)
    answer = await doors.ask("POST", UPLOADS_PATH, V8, LAST, ("Upload-Length", str(len(data))), body=data)
    assert answer.status == 201
    assert answer.headers["upload-complete"] == "?1"
    assert await doors.content(answer.headers["location"]) == data


@pytest.mark.parametrize("which", [LAST, MORE])
async def test_the_first_request_may_bring_nothing(doors: Doors, which: Field) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V8, which)
    assert answer.status == 201
    assert answer.headers["upload-complete"] == which[1]
    assert "upload-limit" in answer.headers


async def test_the_first_request_may_bring_a_part(doors: Doors) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, V8, MORE, ("Upload-Length", "6"), body=b"abc", chunked=True)
    assert (answer.status, answer.headers["upload-offset"], answer.headers["upload-complete"]) == (201, "3", "?0")
    done = await patch(doors, answer.headers["location"], 3, b"def", LAST)
    assert done.status == 204
    assert await doors.content(answer.headers["location"]) == b"abcdef"


async def test_no_interim_answer_is_sent(doors: Doors) -> None:
    async with doors.served.peer() as peer:
        await peer.send(request("POST", UPLOADS_PATH, V8, LAST, length=4) + b"data")
        assert (await peer.read_until(b"\r\n")).startswith(b"HTTP/1.1 201")


async def test_a_client_that_waits_for_continue_is_told_or_refused_before_it_sends(doors: Doors) -> None:
    path = await created(doors)
    async with doors.served.peer() as peer:
        said = (V8, PARTIAL, MORE, ("Expect", "100-continue"))
        await peer.send(request("PATCH", path, *said, ("Upload-Offset", "7"), length=4))
        assert (await read_answer(peer)).status == 409
    async with doors.served.peer() as peer:
        await peer.send(request("PATCH", path, *said, ("Upload-Offset", "0"), length=4))
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await peer.send(b"data")
        assert (await read_answer(peer)).status == 204


# 4.3 Offset retrieval


async def test_head_tells_the_whole_state_and_is_not_cached(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "10"))
    await patch(doors, path, 0, b"12345", MORE)
    answer = await head(doors, path)
    told = {name: answer.headers[name] for name in ("upload-offset", "upload-complete", "upload-length")}
    assert answer.status == 204
    assert told == {"upload-offset": "5", "upload-complete": "?0", "upload-length": "10"}
    assert answer.headers["cache-control"] == "no-store"
    assert "upload-limit" in answer.headers


async def test_a_complete_upload_can_still_be_asked_about(doors: Doors) -> None:
    path = await created(doors)
    await patch(doors, path, 0, b"all", LAST)
    answer = await head(doors, path)
    assert (answer.headers["upload-offset"], answer.headers["upload-complete"]) == ("3", "?1")
    assert answer.headers["repr-digest"] == digest("", b"all")[1]


# 4.4 Append


async def test_another_offset_is_refused_with_the_right_one(doors: Doors) -> None:
    path = await created(doors)
    await patch(doors, path, 0, b"12345", MORE)
    for offset in (0, 4, 6, 10**14):
        answer = await patch(doors, path, offset, b"x", MORE)
        assert (answer.status, answer.kind()) == (409, "mismatching-upload-offset")
        assert answer.headers["upload-offset"] == "5"
        assert (answer.problem()["expected-offset"], answer.problem()["provided-offset"]) == (5, offset)
    assert doors.on_disk(path) == b"12345"


@pytest.mark.parametrize(
    "kind", [None, "application/offset+octet-stream", "application/octet-stream", "multipart/mixed"]
)
async def test_a_body_of_another_type_is_refused_with_the_right_one(doors: Doors, kind: str | None) -> None:
    path = await created(doors)
    fields = [] if kind is None else [("Content-Type", kind)]
    answer = await doors.ask("PATCH", path, V8, *fields, MORE, ("Upload-Offset", "0"), body=b"x")
    assert (answer.status, answer.headers["accept-patch"]) == (415, "application/partial-upload")


async def test_the_last_body_may_be_empty(doors: Doors) -> None:
    path = await created(doors)
    await patch(doors, path, 0, b"all", MORE)
    answer = await patch(doors, path, 3, b"", LAST)
    assert (answer.status, answer.headers["upload-complete"]) == (204, "?1")
    assert [upload.size for upload in doors.completed] == [3]


async def test_an_answer_to_a_part_says_that_more_is_expected(doors: Doors) -> None:
    answer = await patch(doors, await created(doors), 0, b"x", MORE)
    assert (answer.status, answer.headers["upload-complete"]) == (204, "?0")


async def test_a_last_body_that_ends_too_early_does_not_complete_it(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "10"))
    answer = await patch(doors, path, 0, b"12345", LAST, chunked=True)
    assert (answer.status, answer.kind()) == (400, "inconsistent-upload-length")
    again = await head(doors, path)
    assert (again.headers["upload-offset"], again.headers["upload-complete"]) == ("5", "?0")


# 4.5 Cancellation


async def test_a_canceled_upload_is_gone_with_its_bytes(doors: Doors) -> None:
    path = await created(doors)
    await patch(doors, path, 0, b"x", MORE)
    assert (await doors.ask("DELETE", path, V8)).status == 204
    assert (await head(doors, path)).status == 404
    assert list((doors.folder / "parts").iterdir()) == []


# 8 and 9 Codings


async def test_transfer_codings_do_not_count(doors: Doors) -> None:
    data = pattern(100_000)
    path = await created(doors)
    assert (await patch(doors, path, 0, data, MORE, chunked=True)).headers["upload-offset"] == str(len(data))


# 10 Digests


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
async def test_a_body_that_is_not_what_its_digest_says_is_not_appended(doors: Doors, algorithm: str) -> None:
    data = pattern(MIB)
    path = await created(doors)
    wrong = digest("Content-Digest", b"else", algorithm)
    answer = await patch(doors, path, 0, data, LAST, wrong)
    assert (answer.status, answer.kind()) == (400, "digest-mismatching-values")
    [told] = answer.problem()["mismatching-digests"]
    assert f"{told['algorithm']}={told['provided-digest']}" == wrong[1]
    assert "upload-complete" not in answer.headers
    assert await offset_of(doors, path) == 0
    assert (await patch(doors, path, 0, data, LAST, digest("Content-Digest", data, algorithm))).status == 204
    assert await doors.content(path) == data


async def test_every_digest_of_a_body_that_can_be_checked_is(doors: Doors) -> None:
    path = await created(doors)
    good, bad = digest("Content-Digest", b"abc"), digest("Content-Digest", b"else", "sha-512")
    lists = [("Content-Digest", f"md5=:AAAA:, {good[1]}"), good]
    refused = await patch(doors, path, 0, b"abc", MORE, ("Content-Digest", f"{good[1]},{bad[1]}"))
    in_two_lines = await patch(doors, path, 0, b"abc", MORE, good, bad)
    assert (refused.status, in_two_lines.status) == (400, 400)
    for at, field in enumerate(lists):
        assert (await patch(doors, path, 3 * at, b"abc", MORE, field)).status == 204


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
async def test_a_digest_that_cannot_be_checked_is_refused(doors: Doors, field: str) -> None:
    path = await created(doors)
    for text, kind in (
        ("md5=:kAFQmDzST7DWlj99KOF/cg==:", "digest-unsupported-algorithms"),
        ("sha-256=:AAAA:", "digest-invalid-values"),
        ("sha-256=abc", "about:blank"),
        ("sha-256=:*:", "about:blank"),
        ("sha-256=:AAAA:,", "about:blank"),
        ("", "about:blank"),
    ):
        answer = await patch(doors, path, 0, b"x", MORE, (field, text))
        assert (answer.status, answer.kind()) == (400, kind)
        if kind == "digest-unsupported-algorithms":
            assert answer.headers[f"want-{field.lower()}"].startswith("sha-256=10")
    assert await offset_of(doors, path) == 0


@pytest.mark.parametrize("when", ["created", "appended"])
async def test_a_whole_that_is_not_what_its_digest_says_has_failed(doors: Doors, when: str) -> None:
    whole = digest("Repr-Digest", b"something else")
    path = await created(doors, *([whole] if when == "created" else []))
    await patch(doors, path, 0, b"abc", MORE)
    answer = await patch(doors, path, 3, b"def", LAST, *([whole] if when == "appended" else []))
    assert (answer.status, answer.kind()) == (400, "digest-mismatching-values")
    assert answer.headers["upload-complete"] == "?1"
    assert (await head(doors, path)).status == 410
    assert doors.on_disk(path) == b"abcdef"
    assert doors.completed == []


async def test_the_digest_of_the_whole_is_told_when_it_is_complete(doors: Doors) -> None:
    path = await created(doors, digest("Repr-Digest", b"abcdef"), ("Want-Repr-Digest", "sha-256=1"))
    await patch(doors, path, 0, b"abc", MORE)
    done = await patch(doors, path, 3, b"def", LAST)
    assert (done.status, done.headers["repr-digest"]) == (204, digest("", b"abcdef")[1])


# 13 Security considerations


async def test_another_installation_sees_nothing_at_all(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "10"))
    await patch(doors, path, 0, b"x", MORE)
    nowhere = f"{UPLOADS_PATH}/00000000-0000-4000-8000-00000000dead"
    said = (V8, PARTIAL, MORE, ("Upload-Offset", "1"))
    for method in ("HEAD", "PATCH", "DELETE"):
        theirs = await doors.ask(method, path, *said, body=b"y", token="other")
        nobodys = await doors.ask(method, nowhere, *said, body=b"y")
        assert theirs.status == nobodys.status == 404
        assert theirs.body == nobodys.body
    assert await offset_of(doors, path) == 1


async def test_addresses_cannot_be_guessed_and_name_nothing(doors: Doors) -> None:
    paths = [await created(doors) for _ in range(3)]
    assert len({path.rpartition("/")[2][:8] for path in paths}) == 3
    for odd in ("..", "%2e%2e%2fsecret", "../../etc/passwd", paths[0][-36:].upper(), f"{paths[0][-36:]}%00"):
        assert (await doors.ask("HEAD", f"{UPLOADS_PATH}/{odd}", V8)).status == 404


async def test_whoever_may_no_longer_connect_completes_nothing(doors: Doors) -> None:
    path = await created(doors)
    before = doors.upload(path).writer
    async with doors.served.peer() as peer:
        await peer.send(request("PATCH", path, V8, PARTIAL, LAST, ("Upload-Offset", "0"), length=4) + b"da")
        await doors.until(lambda: doors.upload(path).writer > before)
        record = next(iter(doors.hub.records.values()))
        record.refusal = "This installation is no longer active."
        await peer.send(b"ta")
        assert (await read_answer(peer)).status == 403
    record.refusal = None
    assert doors.upload(path).state is UploadState.OPEN


async def test_nobody_comes_in_without_a_token_that_holds(doors: Doors) -> None:
    for token, status in ((None, 401), ("forged", 401)):
        answer = await doors.ask("POST", UPLOADS_PATH, V8, MORE, token=token)
        assert (answer.status, answer.problem()["code"]) == (status, "unauthenticated")
        assert "www-authenticate" in answer.headers
    doors.hub.records.clear()
    assert (await doors.ask("POST", UPLOADS_PATH, V8, MORE)).status == 403
    assert doors.store.rows == {}


# Appendix: draft versions


@pytest.mark.parametrize("version", ["7", "9", "eight", "8.0"])
async def test_another_version_of_the_draft_is_refused(doors: Doors, version: str) -> None:
    said = ("Upload-Draft-Interop-Version", version)
    answer = await doors.ask("POST", UPLOADS_PATH, said, MORE)
    assert answer.status == 400
    assert answer.headers["upload-draft-interop-version"] == "8"


async def test_without_a_version_the_text_is_taken_as_the_standard_it_becomes(doors: Doors) -> None:
    answer = await doors.ask("POST", UPLOADS_PATH, LAST, body=b"data")
    assert (answer.status, answer.headers["upload-complete"]) == (201, "?1")


# Both at one store


async def test_an_upload_begun_in_one_dialect_can_be_ended_in_the_other(doors: Doors) -> None:
    path = await created(doors, ("Upload-Length", "6"))
    tus: Field = ("Tus-Resumable", "1.0.0")
    octets: Field = ("Content-Type", "application/offset+octet-stream")
    assert (await doors.ask("HEAD", await created(doors), tus)).headers["upload-defer-length"] == "1"
    assert (await doors.ask("PATCH", path, tus, octets, ("Upload-Offset", "0"), body=b"abc")).status == 204
    assert (await patch(doors, path, 3, b"def", LAST)).headers["upload-complete"] == "?1"
    assert (await doors.ask("HEAD", path, tus)).headers["upload-offset"] == "6"


async def test_what_the_path_does_not_take_is_refused_with_what_it_takes(doors: Doors) -> None:
    path = await created(doors)
    for method, at, allowed in (
        ("GET", UPLOADS_PATH, "OPTIONS, POST"),
        ("DELETE", UPLOADS_PATH, "OPTIONS, POST"),
        ("GET", path, "DELETE, HEAD, OPTIONS, PATCH"),
        ("PUT", path, "DELETE, HEAD, OPTIONS, PATCH"),
    ):
        answer = await doors.ask(method, at, V8, MORE)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert (await doors.ask("POST", f"{UPLOADS_PATH}?size=5", V8, MORE)).status == 400


async def test_what_expired_is_as_if_it_had_never_been(doors: Doors) -> None:
    path = await created(doors)
    doors.late = timedelta(hours=2)
    nobodys = await doors.ask("DELETE", f"{UPLOADS_PATH}/00000000-0000-4000-8000-00000000dead", V8)
    answer = await patch(doors, path, 0, b"x", MORE)
    assert (answer.status, answer.body) == (404, nobodys.body)
