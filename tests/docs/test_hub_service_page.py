"""The examples of docs/streams.md, run as they stand against a stream socket that the test plays."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trio

from skygw.client.streams import LatestValues, StreamClient, StreamName
from skygw.sim.node import NodeHabits
from skygw.sim.telemetry import PROMISED_TURNS
from tests.fakes.stream_server import stream_server

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text(encoding="utf-8")
SERVICE, LATEST = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
UID = "21ec2020-3aea-4069-a2dd-08002b30309d"


def run_page(source: str, names: dict[str, Any]) -> None:
    exec(compile(source, "docs/streams.md", "exec"), names)  # noqa: S102 - our own page


async def test_the_service_keeps_each_event_with_its_position_and_says_why_nothing_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept: list[tuple[Any, str | None]] = []
    enough = trio.Event()

    async def store(data: Any, position: str | None) -> None:
        await trio.lowlevel.checkpoint()
        kept.append((data, position))
        enough.set()

    async with stream_server() as server, trio.open_nursery() as nursery:
        server.refusals = [(503, b"{}")]
        names: dict[str, Any] = {"token": "token-1", "uid": UID, "saved": "l7", "store": store}
        run_page(SERVICE.replace("https://gateway.example:5003", server.url), names)
        nursery.start_soon(names["main"])
        with trio.fail_after(10):
            served = await (await server.door.accept()).asked()
            served.event("l8", data={"message": "parked"}, prev="l7")
            await enough.wait()
        nursery.cancel_scope.cancel()

    assert served.frame.stream is StreamName.TELESCOPE_LOG
    assert served.options["after"] == "l7"
    assert kept == [({"message": "parked"}, "l8")]
    assert any(said.startswith("no events: ") and "503" in said for said in caplog.messages)


async def test_the_latest_values_are_asked_for_as_the_page_says() -> None:
    async with stream_server() as server, trio.open_nursery() as nursery:
        client = StreamClient(server.url, "token-1")
        nursery.start_soon(client.run)
        names: dict[str, Any] = {
            "client": client,
            "nursery": nursery,
            "StreamName": StreamName,
            "LatestValues": LatestValues,
            "uid": UID,
        }
        body = textwrap.indent(LATEST, "    ")
        run_page(f"async def main():\n{body}    return mount\n", names)
        with trio.fail_after(10):
            nothing = await names["main"]()
        nursery.cancel_scope.cancel()

    assert nothing is None


def test_the_age_on_the_page_is_one_that_a_node_of_the_simulation_keeps() -> None:
    [age_s] = re.findall(r"max_age_s=([\d.]+)", LATEST)
    assert float(age_s) == NodeHabits.snapshot_every_s * PROMISED_TURNS
    assert f"every {NodeHabits.snapshot_every_s:g} s and promises {age_s.removesuffix('.0')} " in PAGE
