"""A client's work for the hub without its socket, against the fake hub over real HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import trio

from skygw.client.config import NodeConfig
from skygw.client.direct import Operations
from skygw.client.disk_work import in_a_thread
from skygw.client.hub_http import Record
from skygw.client.owed_work import OwedWork
from skygw.client.spare_disk import SpareDisk, free_bytes
from skygw.client.work import Work
from skygw.ids import InstallId, TaskUid
from skygw.protocol.node_frames import NodeType

PATIENCE_S = 10.0


async def a_token() -> str:
    return "token-1"


def make_config(
    url: str,
    directory: Path,
    *,
    token: Callable[[], Awaitable[str]] = a_token,
    upload_bytes_per_s: float | None = None,
) -> NodeConfig:
    return NodeConfig(
        url=url,
        install_id=InstallId(UUID(int=42)),
        node_type=NodeType.TELESCOPE,
        software_version="1.0",
        token=token,
        state_dir=directory,
        upload_bytes_per_s=upload_bytes_per_s,
    )


def _heard(task: TaskUid, answer: Record) -> None:
    """Nobody wants to know."""


@asynccontextmanager
async def owing(
    config: NodeConfig,
    *,
    directed: Callable[[TaskUid, Record], None] | None = None,
    free: Callable[[Path], int] = free_bytes,
    deliver: bool = True,
) -> AsyncIterator[OwedWork]:
    """Runs it until the block is left; the shortest waits of every back-off. `deliver` false: the hub is not asked."""
    config.state_dir.mkdir(parents=True, exist_ok=True)
    spare = SpareDisk(config.state_dir, keep_free_bytes=config.keep_free_bytes, free=free)
    async with (
        OwedWork.opened(
            config,
            Operations(),
            spare=spare,
            disk=in_a_thread(),
            directed=directed or _heard,
            chance=lambda: 0.0,
            dialled=None,
        ) as owed,
        trio.open_nursery() as nursery,
    ):
        if deliver:
            nursery.start_soon(owed.run)
        yield owed
        nursery.cancel_scope.cancel()


async def done(work: Work, *, failed: int = 0) -> None:
    """Returns when nothing is owed and so many were set aside."""
    with trio.fail_after(PATIENCE_S):
        while True:
            changed = work.changed
            if work.owed == (0, 0, failed):
                return
            await changed.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Polls what other tasks make true."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what a person reads off a client has no event
            await trio.sleep(0.005)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def delete(path: Path) -> None:
    path.unlink()
