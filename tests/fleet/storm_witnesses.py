"""Nodes that stay connected during a storm, and services that call them: what the storm costs those it is not about.

A process of its own, driven by lines of JSON. Calls are made at fixed times whatever became of the last one, and their
waiting counts from when they were due: a gateway that stands still is seen by every call that it keeps waiting.
"""

import json
import sys
import time
from functools import partial
from typing import Any

import trio

from tests.benchmarks.loads.nodes import ANSWER, hello, in_three, text
from tests.benchmarks.raw_websocket import raw_websocket
from tests.fakes.http_connection import http_connection


class Witnesses:
    """Each has a link and a caller of its own."""

    def __init__(self) -> None:
        self.waits: list[tuple[float, float]] = []
        """When each call was due, and how long after that it was answered."""
        self.failures: list[str] = []
        self.links_ended = 0

    async def stay(
        self, url: str, install_id: str, token: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answers until cancelled; a link that ends stays ended, and is counted."""
        try:
            async with raw_websocket(url, token=token) as socket:
                await socket.send(hello(install_id))
                while True:
                    frame = json.loads(await socket.receive())
                    match frame["kind"]:
                        case "welcome":
                            task_status.started()
                        case "direct_request":
                            await socket.send(in_three(frame["id"]))
                        case "ping":
                            await socket.send(text({"kind": "pong", "id": frame["id"]}))
        except Exception as error:
            self.links_ended += 1
            self.failures.append(f"the link ended: {error!r}")
            raise

    def call_all(self, nursery: trio.Nursery, job: dict[str, Any]) -> None:
        """Each is called in its turn, so that the calls are spread over the time."""
        now, every_s = time.monotonic(), job["every_s"]
        for turn, (install_id, _) in enumerate(job["nodes"]):
            first_at = now + every_s * turn / len(job["nodes"])
            call = partial(self.call, first_at=first_at, every_s=every_s)
            nursery.start_soon(call, job["internal_url"], install_id, job["service_token"])

    async def call(self, url: str, install_id: str, token: str, *, first_at: float, every_s: float) -> None:
        """One call after the other until cancelled."""
        async with http_connection(url, token=token) as connection:
            due = first_at
            body = {"operation": "device.read", "params": {}}
            while True:
                await trio.sleep(max(0.0, due - time.monotonic()))
                said = await connection.post(f"/internal/nodes/{install_id}/direct", body)
                self.waits.append((due, time.monotonic() - due))
                if said.status != 200 or said.body != ANSWER:
                    self.failures.append(f"{said.status} {said.body[:200]!r}")
                due += every_s

    def told(self) -> dict[str, Any]:
        """What was seen since this was asked last."""
        waits, self.waits = self.waits, []
        failures, self.failures = self.failures, []
        return {"waits": waits, "failures": failures, "links_ended": self.links_ended}


async def main() -> None:
    """Until stdin ends."""
    async with trio.open_nursery() as nursery:
        witnesses = Witnesses()
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            job = json.loads(line)
            match job["do"]:
                case "begin":
                    for install_id, token in job["nodes"]:
                        await nursery.start(witnesses.stay, job["url"], install_id, token)
                    witnesses.call_all(nursery, job)
                    answer_ = {}
                case "told":
                    answer_ = witnesses.told()
                case other:
                    raise ValueError(f"no such job: {other}")
            sys.stdout.write(json.dumps(answer_) + "\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
