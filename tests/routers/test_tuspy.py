"""A client that others wrote, `tuspy`, uploads to us, is cut, and goes on."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from tusclient import client
from tusclient.exceptions import TusCommunicationError

from skygw.observing.byte_store import MIB
from skygw.routers.upload_dialects import UPLOADS_PATH
from tests.routers.upload_doors import Doors, upload_doors
from tests.storage.contract import pattern


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with upload_doors(tmp_path / "files") as doors:
        yield doors


class Line:
    """A TCP line to the gateway that is reset when so many bytes have gone up, once."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.cut_after: int | None = None
        self.cuts = 0

    async def carry(self, near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(*self._target) as far, near, trio.open_nursery() as nursery:
            nursery.start_soon(self._up, near, far, nursery.cancel_scope)
            await self._down(far, near)
            nursery.cancel_scope.cancel()

    async def _up(self, near: trio.SocketStream, far: trio.SocketStream, both: trio.CancelScope) -> None:
        gone_up = 0
        try:
            async for data in near:
                gone_up += len(data)
                if self.cut_after is not None and gone_up > self.cut_after:
                    self.cut_after = None
                    self.cuts += 1
                    for stream in (near, far):
                        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    both.cancel()
                    return
                await far.send_all(data)
        except trio.BrokenResourceError:
            both.cancel()

    async def _down(self, far: trio.SocketStream, near: trio.SocketStream) -> None:
        try:
            async for data in far:
                await near.send_all(data)
        except trio.BrokenResourceError:
            return


@asynccontextmanager
async def line_to(doors: Doors) -> AsyncIterator[tuple[Line, str]]:
    line = Line(doors.served.listener.address)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, line.carry, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield line, f"http://127.0.0.1:{port}{UPLOADS_PATH}"
        nursery.cancel_scope.cancel()


@contextmanager
def uploading(at: str, file: Path, **settings: object) -> Iterator[Any]:
    """`tuspy` leaves a file open that it opened itself."""
    with file.open("rb") as stream:
        yield client.TusClient(at, headers={"Authorization": "Bearer site"}).uploader(
            file_stream=stream, chunk_size=MIB, metadata={"filename": "m13.fits"}, **settings
        )


def sent(url: str, file: Path, **settings: object) -> None:
    with uploading(url, file, **settings) as uploader:
        uploader.upload()


DATA = pattern(4 * MIB + 77)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "m13.fits"
    file.write_bytes(DATA)
    return file


@pytest.mark.parametrize("checksum", [False, True])
async def test_it_uploads_a_file(doors: Doors, file: Path, checksum: bool) -> None:
    async with line_to(doors) as (_, url):
        await trio.to_thread.run_sync(partial(sent, url, file, upload_checksum=checksum))
    [done] = doors.completed
    assert done.metadata == "filename bTEzLmZpdHM="
    assert await doors.content(f"{UPLOADS_PATH}/{done.uid}") == DATA


async def test_it_is_cut_in_the_middle_of_a_piece_and_a_later_run_goes_on(doors: Doors, file: Path) -> None:
    def until_it_is_cut(line: Line, url: str) -> str:
        with uploading(url, file) as uploader:
            uploader.upload_chunk()
            line.cut_after = MIB // 2
            with pytest.raises(TusCommunicationError):
                uploader.upload()
            return str(uploader.url)

    def later(url: str) -> int:
        with uploading("http://nowhere.invalid", file, url=url) as uploader:
            began_at = int(uploader.offset)
            uploader.upload()
            return began_at

    async with line_to(doors) as (line, url):
        where = await trio.to_thread.run_sync(until_it_is_cut, line, url)
        assert line.cuts == 1
        assert MIB <= await trio.to_thread.run_sync(later, where) < 2 * MIB
    [done] = doors.completed
    assert await doors.content(f"{UPLOADS_PATH}/{done.uid}") == DATA


async def test_it_tries_again_by_itself(doors: Doors, file: Path) -> None:
    async with line_to(doors) as (line, url):
        line.cut_after = MIB // 2
        await trio.to_thread.run_sync(partial(sent, url, file, retries=3, retry_delay=0))
        assert line.cuts == 1
    [done] = doors.completed
    assert await doors.content(f"{UPLOADS_PATH}/{done.uid}") == DATA
