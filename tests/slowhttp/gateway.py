"""The gateway under attack, as a process of its own: says where it listens and runs until it is killed."""

import json
import logging
import signal
import sys
import tempfile
from pathlib import Path

import trio

from tests.gateway.world import gateway


async def run(data_dir: Path) -> None:
    async with gateway(None, data_dir) as world:
        sys.stdout.write(json.dumps({"internal": world.running.internal_url, "token": world.service_token()}) + "\n")
        sys.stdout.flush()
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(aiter(signals))


if __name__ == "__main__":
    logging.getLogger("skygw").setLevel(logging.ERROR)  # that attackers are cut is what is expected
    with tempfile.TemporaryDirectory(prefix="skygw-slowhttp-") as folder:
        trio.run(run, Path(folder, "hub"))
