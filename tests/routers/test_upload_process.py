"""Uploads against a process of their own: what was acknowledged survives kill -9, and size costs no memory.

`SKYGW_TEST_UPLOAD_MIB` and `SKYGW_TEST_UPLOAD_KILLS` make them longer; `nox -s uploads` does.
"""

import os
import random
from hashlib import sha256
from pathlib import Path

import trio

from skygw.observing.byte_store import MIB
from skygw.routers.upload_dialects import UPLOADS_PATH
from tests.fakes.process_memory import ProcessMemory
from tests.fakes.upload_gateway import upload_process
from tests.routers.test_tus import OCTETS, V1
from tests.routers.upload_doors import Answer, Field, read_answer, request
from tests.serving.served import Peer
from tests.storage.contract import pattern

WEIGHED_MIB = int(os.environ.get("SKYGW_TEST_UPLOAD_MIB", "128"))
KILLS = int(os.environ.get("SKYGW_TEST_UPLOAD_KILLS", "1"))
SEED = os.environ.get("SKYGW_TEST_SEED", "7")

MAY_RISE_BYTES = 64 * MIB
LONGEST_S = 600.0


async def peer_of(port: int) -> Peer:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return Peer(stream, stream)


async def ask(port: int, method: str, path: str, *fields: Field) -> Answer:
    peer = await peer_of(port)
    async with peer.stream:
        await peer.send(request(method, path, V1, *fields))
        return await read_answer(peer, method=method)


def patch_head(path: str, offset: int, length: int) -> bytes:
    return request("PATCH", path, V1, OCTETS, ("Upload-Offset", str(offset)), length=length)


async def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    """Until the process is killed at a moment that the seed says, bodies come one after the other."""
    draw = random.Random(SEED)  # noqa: S311 - moments, not secrets
    data = pattern(48 * MIB)
    acknowledged, path = 0, ""
    for _ in range(KILLS):
        async with upload_process(tmp_path) as process:
            if not path:
                answer = await ask(process.port, "POST", UPLOADS_PATH, ("Upload-Length", str(len(data))))
                path = answer.headers["location"]
            offset = int((await ask(process.port, "HEAD", path)).headers["upload-offset"])
            assert offset >= acknowledged
            with (tmp_path / "files" / "parts" / path.rpartition("/")[2]).open("rb") as part:
                assert part.read(offset) == data[:offset]
            die_at = offset + draw.randrange(len(data) // KILLS)
            peer = await peer_of(process.port)
            async with peer.stream:
                while offset < die_at:
                    end = min(offset + draw.randrange(1, 3 * MIB), len(data) - 1)
                    if end >= die_at:
                        await peer.send(patch_head(path, offset, end - offset) + data[offset:die_at])
                        break
                    await peer.send(patch_head(path, offset, end - offset) + data[offset:end])
                    answer = await read_answer(peer)
                    assert (answer.status, answer.headers["upload-offset"]) == (204, str(end))
                    acknowledged = offset = end
                await process.kill()
    async with upload_process(tmp_path) as process:
        offset = int((await ask(process.port, "HEAD", path)).headers["upload-offset"])
        assert acknowledged <= offset < len(data)
        peer = await peer_of(process.port)
        async with peer.stream:
            await peer.send(patch_head(path, offset, len(data) - offset) + data[offset:])
            assert (await read_answer(peer)).status == 204
    digest = sha256(data).hexdigest()
    stored = tmp_path / "files" / "contents" / digest[:2] / f"{digest}-{len(data)}"
    assert stored.read_bytes() == data


async def test_the_size_of_an_upload_costs_no_memory(tmp_path: Path) -> None:
    block = pattern(MIB)
    size = WEIGHED_MIB * MIB
    async with upload_process(tmp_path) as process:
        memory = ProcessMemory(process.pid)
        path = (await ask(process.port, "POST", UPLOADS_PATH, ("Upload-Length", str(size)))).headers["location"]
        memory.forget_peak()
        before = memory.now()
        peer = await peer_of(process.port)
        async with peer.stream:
            with trio.fail_after(LONGEST_S):
                await peer.stream.send_all(patch_head(path, 0, size))
                for _ in range(WEIGHED_MIB):
                    await peer.stream.send_all(block)
                answer = await read_answer(peer)
        assert (answer.status, answer.headers["upload-offset"]) == (204, str(size))
        assert memory.peak() - before < MAY_RISE_BYTES
