"""Uploads over lines that break, hang and creep, and beside writers that will not go: real sockets throughout."""

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from skygw.observing.byte_store import MIB
from skygw.routers.upload_dialects import UPLOADS_PATH
from skygw.serving import End
from tests.routers.test_tus import OCTETS, V1, created, offset_of, patch
from tests.routers.upload_doors import Doors, read_answer, request, upload_doors
from tests.storage.contract import pattern


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with upload_doors(tmp_path / "files") as doors:
        yield doors


def patch_head(path: str, offset: int, length: int) -> bytes:
    return request("PATCH", path, V1, OCTETS, ("Upload-Offset", str(offset)), length=length)


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_line_that_breaks_costs_nothing_that_came(doors: Doors, how: str) -> None:
    data = pattern(3 * MIB)
    path = await created(doors, len(data))
    cuts = [0, 1, 70_000, 1_500_000, 3 * MIB - 1]
    for start, end in pairwise(cuts):
        async with doors.served.peer() as peer:
            await peer.send(patch_head(path, start, len(data) - start) + data[start:end])
            if how == "reset":  # what the kernel has not handed on is lost, so wait until it has
                await doors.until(lambda end=end: len(doors.on_disk(path)) >= end // MIB * MIB)  # type: ignore[misc]
                peer.transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "closed":
            await doors.until(lambda end=end: doors.upload(path).offset == end)  # type: ignore[misc]
        at = await offset_of(doors, path)
        assert start <= at <= end
        assert doors.on_disk(path)[:at] == data[:at]
        if at < end:
            assert (await patch(doors, path, at, data[at:end])).status == 204
    assert (await patch(doors, path, cuts[-1], data[cuts[-1] :])).status == 204
    assert await doors.content(path) == data


async def test_a_writer_that_hangs_is_cut_at_once_by_whoever_asks_how_far_it_came(doors: Doors) -> None:
    data = pattern(2 * MIB)
    path = await created(doors, len(data))
    async with doors.served.peer() as hanging:
        await hanging.send(patch_head(path, 0, len(data)) + data[: MIB + 5])
        await doors.until(lambda: len(doors.on_disk(path)) >= MIB)
        at = await offset_of(doors, path)
        assert MIB <= at <= MIB + 5
        assert await hanging.read_to_end() == b""
        assert (await patch(doors, path, at, data[at:])).status == 204
    assert await doors.content(path) == data


async def test_of_two_writers_the_newer_one_goes_on(doors: Doors) -> None:
    data = pattern(MIB)
    path = await created(doors, len(data))
    async with doors.served.peer() as older:
        await older.send(patch_head(path, 0, len(data)))
        await doors.until(lambda: doors.upload(path).writer == 1)
        answer = await patch(doors, path, 0, data)
        assert answer.status == 204
        assert await older.read_to_end() == b""
    assert await doors.content(path) == data


async def test_a_writer_is_cut_when_its_upload_is_given_up(doors: Doors) -> None:
    path = await created(doors, MIB)
    async with doors.served.peer() as writer:
        await writer.send(patch_head(path, 0, MIB) + b"x" * 100)
        await doors.until(lambda: doors.upload(path).writer == 1)
        assert (await doors.ask("DELETE", path, V1)).status == 204
        assert await writer.read_to_end() == b""
    assert doors.store.rows == {}


async def test_a_body_that_creeps_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    async with upload_doors(tmp_path / "files", body_grace_s=0.2, body_idle_timeout_s=0.2) as doors:
        path = await created(doors, 1_000)
        async with doors.served.peer() as peer:
            await peer.send(patch_head(path, 0, 1_000) + b"x" * 300)
            assert (await read_answer(peer)).status == 408
        await doors.served.metrics.until_closed(End.SLOW_BODY)
        assert await offset_of(doors, path) == 300


async def test_one_connection_can_carry_an_upload_from_its_first_byte_to_its_last(doors: Doors) -> None:
    data = pattern(MIB)
    async with doors.served.peer() as peer:
        await peer.send(request("POST", UPLOADS_PATH, V1, ("Upload-Length", str(len(data)))))
        path = (await read_answer(peer)).headers["location"]
        for start in range(0, MIB, MIB // 4):
            await peer.send(patch_head(path, start, MIB // 4) + data[start : start + MIB // 4])
            assert (await read_answer(peer)).status == 204
            await peer.send(request("HEAD", path, V1))
            assert (await read_answer(peer, method="HEAD")).headers["upload-offset"] == str(start + MIB // 4)
    assert await doors.content(path) == data


async def test_a_refused_body_is_not_read_to_its_end(doors: Doors) -> None:
    path = await created(doors, 64 * MIB)
    async with doors.served.peer() as peer:
        await peer.send(patch_head(path, 5, 64 * MIB) + b"x" * 100_000)
        answer = await read_answer(peer)
        assert (answer.status, answer.headers["connection"]) == (409, "close")
    assert doors.on_disk(path) == b""


async def test_the_disk_is_asked_for_room_before_a_body_is_taken(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await created(doors, 1_000)

    async def free() -> int:
        return 999

    monkeypatch.setattr(doors.files, "free_bytes", free)
    answer = await patch(doors, path, 0, b"x" * 1_000)
    assert (answer.status, answer.problem()["code"]) == (507, "storage_full")
    assert re.fullmatch(r"\d+", answer.headers["retry-after"])
    assert (await patch(doors, path, 0, b"x" * 999)).status == 204
