"""`skygw watch commands`: two streams, a line for each step, and where to go on."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import trio

from skygw.cli.main import run
from skygw.cli.running_gateway import Entrance
from skygw.cli.terminal import ExitCode, Terminal
from skygw.cli.watch_commands import MAX_KNOWN, _Lines
from skygw.client.caller import Caller
from skygw.client.streams import Changed, StreamName
from skygw.protocol.json_text import compact
from skygw.protocol.node_frames import Ping
from tests.cli.test_watch import PATIENCE_S, OnATerminal, Watching
from tests.fakes.canned_http import canned_http
from tests.fakes.moments import NOW
from tests.fakes.stream_links import GatewayEnd, Served
from tests.fakes.stream_server import StreamServer, stream_server

COMMAND, TELESCOPE, MOUNT = str(uuid4()), str(uuid4()), str(uuid4())
SENT: dict[str, Any] = {
    "command_id": COMMAND,
    "telescope_uid": TELESCOPE,
    "command": {"command_type": "mount.park"},
    "service": "planner",
}
PROOF = {"devices": [{"device_uid": MOUNT, "state": "parked", "basis": "read_back", "settled_ms": 9}]}


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StreamServer]:
    async with stream_server() as made:
        monkeypatch.setenv("SKYGW_URL", made.url)
        monkeypatch.setenv("SKYGW_TOKEN", "a-token")
        yield made


async def both(end: GatewayEnd) -> Mapping[str, Served]:
    """The two subscriptions of one socket, by stream."""
    return {served.frame.stream.value: served for served in [await end.asked(), await end.asked()]}


async def heard(end: GatewayEnd) -> None:
    """Until everything said so far has come."""
    end.say(Ping(id="read"))
    await end.hear()


async def test_on_a_terminal_each_step_is_a_line_that_says_of_what_and_by_whom(server: StreamServer) -> None:
    watching = OnATerminal("commands", "--after", "l5,l7")
    end = await server.door.accept()
    served = await both(end)
    sent, steps = served["command"], served["command_result"]
    sent.event("l8", data=SENT)
    sent.live("l8")
    await heard(end)
    steps.event("l9", data={"command_id": COMMAND, "status": "received", "hop": "gateway", "service": "planner"})
    steps.event("l10", data={"command_id": COMMAND, "status": "running", "progress": 0.4})
    steps.event("l11", data={"command_id": COMMAND, "status": "completed", "proof": PROOF})
    await watching.until("read back: parked")
    steps.event("l12", data={"command_id": COMMAND, "status": "failed", "error": {"message": "stuck \x1b[2J"}})
    steps.live("l13")
    await watching.until("live: what follows is news")
    steps.live("l14")
    await heard(end)
    code = await watching.interrupted()

    lines = [" ".join(line.split()) for line in watching.written.replace("\r", "").splitlines()]
    head = f"2026-07-01 03:00:00 {TELESCOPE} mount.park"
    assert code == ExitCode.OK
    assert (sent.options, steps.options) == ({"after": "l5"}, {"after": "l7"})
    assert f"{head} received gateway by planner {COMMAND}" in lines
    assert f"{head} running, 40% node {COMMAND}" in lines
    assert f"{head} completed node read back: parked {COMMAND}" in lines
    assert rf"{head} failed node stuck \x1b[2J {COMMAND}" in lines
    assert lines.count("live: what follows is news") == 1
    # Never past what was shown; a Ctrl-C may come between showing the last one and noting that it was.
    assert lines[-1] in {f"last positions: {at} (--after {at} resumes from there)" for at in ("l8,l13", "l8,l14")}


def changed(stream: StreamName, **data: Any) -> Changed:
    return Changed(
        stream=stream.value,
        text=compact.encode(data),
        install_id=None,
        observed_at=None,
        received_at=NOW,
        heard_at=None,
        stale=None,
        max_silence_s=None,
        position="l1",
        message="",
    )


async def test_what_was_sent_before_the_watch_began_is_looked_up_once(capsys: pytest.CaptureFixture[str]) -> None:
    step = changed(StreamName.COMMAND_RESULT, command_id=COMMAND, status="running")
    async with canned_http() as http:
        http.answer(200, {"command": {"command_type": "mount.park"}, "telescopeUid": TELESCOPE, "deviceUid": MOUNT})
        http.answer(404, {"code": "not_found", "detail": "Not known."})
        way_in = Entrance(http.base_url, lambda: "t", None)
        async with Caller(way_in.url, "t") as caller:
            lines = _Lines(Terminal(), caller, way_in)
            for _ in range(3):
                await lines.take(StreamName.COMMAND_RESULT, step)
            for _ in range(MAX_KNOWN):
                other = {**SENT, "command_id": str(uuid4())}
                await lines.take(StreamName.COMMAND, changed(StreamName.COMMAND, **other))
            await lines.take(StreamName.COMMAND_RESULT, step)
    written = capsys.readouterr()

    assert [line.split()[2:4] for line in written.out.splitlines()] == [[MOUNT, "mount.park"]] * 3 + [["-", "?"]]
    assert written.err == f"what {COMMAND} is cannot be looked up: Not known.\n"
    assert len(http.heads) == 2


async def test_what_cannot_be_looked_up_is_shown_all_the_same(server: StreamServer) -> None:
    watching = OnATerminal("commands", "--device", MOUNT)
    end = await server.door.accept()
    served = await both(end)
    steps = served["command_result"]
    steps.event("l10", data={"command_id": "no id at all", "status": "running"})
    await watching.until("what no id at all is cannot be looked up")
    await watching.until("running")
    code = await watching.interrupted()

    assert code == ExitCode.OK
    assert steps.frame.filter is not None
    assert steps.frame.filter.value == {"device_uid": [MOUNT]}
    assert "last positions" not in watching.written  # of `command` none is known


async def test_for_programs_messages_of_both_streams_come_as_they_are(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching("commands", "--json", "--after", "earliest", "--telescope", TELESCOPE)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            end = await server.door.accept()
            served = await both(end)
            served["command"].event("l1", data=SENT)
            served["command_result"].event("l2", data={"command_id": COMMAND, "status": "running"})
            await heard(end)
            end.hang_up(4001, "draining")
            end = await server.door.accept()
            again = await both(end)
            again["command"].live("l1")
            again["command_result"].live("l2")
            await heard(end)
            again["command_result"].end("forbidden")
    written = capsys.readouterr()
    kinds = [json.loads(line).get("kind") for line in written.out.splitlines()]

    assert watching.code == ExitCode.FAILED
    assert {one.options["after"] for one in served.values()} == {"earliest"}
    assert (again["command"].options, again["command_result"].options) == ({"after": "l1"}, {"after": "l2"})
    assert sorted(filter(None, kinds)) == [
        *("event_command", "event_command_result", "event_live", "event_live", "watch_away")
    ]
    assert "last positions: l1,l2 (--after l1,l2 resumes from there)" in written.err
    assert written.err.endswith("skygw: It ended.\n")


@pytest.mark.parametrize("after", ["", ",", "l1,", ",l2", "l1,l2,l3", "x" * 99])
def test_positions_that_are_none_are_a_usage_error(after: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "commands", "--after", after]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("skygw: --after")


async def test_a_scope_that_is_missing_is_one_sentence(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals = [(403, b'{"detail":"The token lacks the scope \\"streams:read\\"."}')]
    watching = Watching("commands")
    with trio.fail_after(PATIENCE_S):
        await watching.run()

    assert watching.code == ExitCode.FAILED
    assert "streams:read" in capsys.readouterr().err
    assert len(server.asked) == 1
