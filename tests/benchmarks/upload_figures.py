"""One repetition of uploads: bytes hashed and on the disk per second, beside `sha256sum` and `dd conv=fsync` of them.

Nobody is kept to a core: hashing, writing and receiving are threads of one process here, and two processes there.
"""

import subprocess
from functools import partial
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import trio

from skygw.routers.upload_dialects import UPLOADS_PATH
from tests.benchmarks.plan import MIB, Plan
from tests.benchmarks.report import OURS, Report
from tests.fakes.upload_gateway import upload_process
from tests.routers.test_upload_process import ask, patch_head, peer_of
from tests.routers.upload_doors import read_answer
from tests.storage.contract import pattern

COMMANDS = "sha256sum beside dd conv=fsync"
AT_ONCE = (1, 8)
WITHIN_S = 600.0


async def repeat(plan: Plan, data_dir: Path, report: Report) -> None:
    """`plan.sent_bytes` in all, in one upload and in eight at once."""
    folder = data_dir.with_name(f"uploads-{uuid4()}")
    folder.mkdir(parents=True)
    for number in AT_ONCE:
        size = plan.sent_bytes // number
        data = pattern(size, seed=number)
        figure = f"uploads with SHA-256 and fsync, {number} at once, MiB/s"
        async with upload_process(folder / f"of-{number}") as process:
            began = perf_counter()
            with trio.fail_after(WITHIN_S):
                async with trio.open_nursery() as nursery:
                    for _ in range(number):
                        nursery.start_soon(upload, process.port, data)
            report.add(figure, OURS, number * size / MIB / (perf_counter() - began))
        source = folder / "source"
        source.write_bytes(data)
        report.add(figure, COMMANDS, number * size / MIB / await commands(source, number))


async def upload(port: int, data: bytes) -> None:
    answer = await ask(port, "POST", UPLOADS_PATH, ("Upload-Length", str(len(data))))
    peer = await peer_of(port)
    async with peer.stream:
        await peer.stream.send_all(patch_head(answer.headers["location"], 0, len(data)))
        for at in range(0, len(data), MIB):
            await peer.stream.send_all(data[at : at + MIB])
        done = await read_answer(peer)
    if done.status != 204:
        raise RuntimeError(f"an upload was answered with {done.status}")


async def commands(source: Path, number: int) -> float:
    """Seconds until as many copies are on the disk and as many digests are known; their source is in the page cache."""
    began = perf_counter()
    async with trio.open_nursery() as nursery:
        for copy in range(number):
            target = source.with_name(f"copy-{uuid4()}-{copy}")
            run = partial(trio.run_process, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            nursery.start_soon(run, ["sha256sum", str(source)])
            nursery.start_soon(run, ["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"])
    return perf_counter() - began
