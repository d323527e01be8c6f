"""`watch` against a gateway that does as it is told: what is printed, what is asked, how it ends."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from skygw.protocol.node_frames import Ping
from tests.cli.fake_gateway import FakeGateway, as_json
from tests.fakes.stream_server import StreamServer, stream_server

UID = str(UUID(int=7))
PATIENCE_S = 20.0


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StreamServer]:
    async with stream_server() as made:
        monkeypatch.setenv("SKYGW_URL", made.url)
        monkeypatch.setenv("SKYGW_TOKEN", "a-token")
        yield made


class Watching:
    """`skygw watch …` in a thread; `code` when it has ended."""

    def __init__(self, *argv: str) -> None:
        self._argv = ["watch", *argv]
        self.code: int | None = None

    async def run(self) -> None:
        self.code = await trio.to_thread.run_sync(partial(run, self._argv))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_each_message_is_a_line_of_json_and_the_last_position_is_told_at_the_end(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching("telescope_log", "--after", "l1")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            served = await (await server.door.accept()).asked()
            served.event("l2", data={"message": "cooling"})
            served.live("l3")
            served.end("forbidden")
    written = capsys.readouterr()

    assert watching.code == ExitCode.FAILED
    assert server.asked == [("/internal/ws/stream", "Bearer a-token")]
    assert served.options == {"after": "l1"}
    event, live = lines(written.out)
    assert (event["kind"], event["position"], event["data"]) == ("event_telescope_log", "l2", {"message": "cooling"})
    assert live["kind"] == "event_live"
    assert written.err.splitlines() == ["last position: l3 (--after l3 resumes from there)", "skygw: It ended."]


async def test_a_lost_link_is_told_and_resumed(server: StreamServer, capsys: pytest.CaptureFixture[str]) -> None:
    watching = Watching("telescope_log", "--json")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            first = await server.door.accept()
            (await first.asked()).live("l1")
            first.hang_up(4001, "draining")
            served = await (await server.door.accept()).asked()
            served.event("l2")
            served.event("l9", prev="l8")
            await served.gateway_end.hear()  # the old one is taken back
            (await served.gateway_end.asked()).end("forbidden")
    told = lines(capsys.readouterr().out)

    assert served.options == {"after": "l1"}
    assert [line.get("kind") for line in told] == [
        "event_live",
        "watch_away",
        "event_telescope_log",
        "watch_gap",
        "watch_away",
        None,  # why it failed
    ]
    assert "4001: draining" in told[1]["reason"]
    assert (told[3]["from"], told[3]["to"], told[3]["reason"]) == ("l2", "l9", "lost")


async def test_filters_and_options_are_handed_on(server: StreamServer, capsys: pytest.CaptureFixture[str]) -> None:
    telescopes = [str(uuid4()), str(uuid4())]
    argv = ["device_snapshot", "--telescope", telescopes[0], "--telescope", telescopes[1], "--device-type", "mount"]
    argv += ["--node", UID, "--no-existing", "--max-rate", "2", "--fields", "a, b"]
    watching = Watching(*argv)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            served = await (await server.door.accept()).asked()
            served.end("forbidden")

    assert served.frame.filter is not None
    assert served.frame.filter.value == {"telescope_uid": telescopes, "device_type": ["mount"], "install_id": [UID]}
    assert served.options == {"include_existing": False, "max_rate_hz": 2.0, "fields": ["a", "b"]}


async def test_a_line_stays_a_line_and_says_the_same_whatever_a_node_has_written(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = '{\n "é": "\u202e\x7f\U0001f52d\x9b2J",\r\n\t"n": 1}'
    watching = Watching("node_event")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            end = await server.door.accept()
            served = await end.asked()
            end.say(
                f'{{"kind":"event_node_event","subscription_id":"{served.frame.subscription_id}","position":"l1",'
                f'"prev":null,"install_id":null,"observed_at":null,"received_at":"2026-07-01T03:00:00Z",'
                f'"data":{payload}}}'
            )
            served.end("forbidden")
    out = capsys.readouterr().out

    assert out.count("\n") == 1
    assert out.isascii()
    assert out.strip().isprintable()
    assert json.loads(out)["data"] == json.loads(payload)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_one_sentence_and_not_tried_again(
    server: StreamServer, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    server.refusals = [(status, b'{"detail":"The token lacks the scope \\"streams:read\\"."}')] * 5
    watching = Watching("device_snapshot")
    with trio.fail_after(PATIENCE_S):
        await watching.run()
    written = capsys.readouterr()

    assert watching.code == ExitCode.FAILED
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert "streams:read" in written.err
    assert len(server.asked) == 1


async def test_a_subscription_that_is_refused_ends_in_the_gateways_own_words(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching("telescope_log", "--fields", "a")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            end = await server.door.accept()
            served = await end.asked()
            error = {"kind": "error", "code": "invalid", "message": "options.fields is for retained streams."}
            end.say({**error, "details": {"reason": "invalid"}, "id": served.frame.subscription_id})

    assert watching.code == ExitCode.FAILED
    assert capsys.readouterr().err == "skygw: --fields is for retained streams.\n"


@pytest.mark.parametrize("after", ["hello", ""])
async def test_a_position_that_was_only_asked_for_is_not_told_as_the_last(
    server: StreamServer, capsys: pytest.CaptureFixture[str], after: str
) -> None:
    watching = Watching("telescope_log", "--after", after)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            end = await server.door.accept()
            served = await end.asked()
            error = {"kind": "error", "code": "invalid", "message": f"options.after: {after!r} is no position."}
            end.say({**error, "details": {"reason": "invalid"}, "id": served.frame.subscription_id})

    assert capsys.readouterr().err == f"skygw: --after: {after!r} is no position.\n"


async def test_beats_are_lines_of_json_too_so_that_every_prev_is_the_position_of_the_line_before(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching("telescope_log")
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.run)
            served = await (await server.door.accept()).asked()
            served.live("l1")
            served.live("l7")
            served.event("l8")
            served.end("forbidden")
    told = lines(capsys.readouterr().out)

    assert [(line["prev"], line["position"]) for line in told] == [(None, "l1"), ("l1", "l7"), ("l7", "l8")]


def test_a_gateway_that_does_not_run_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYGW_TOKEN", "a-token")
    assert run(["watch", "device_snapshot", "--url", "http://127.0.0.1:1", "--json"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert "127.0.0.1:1" in written.err
    assert "skygw serve" in written.err
    assert [line["code"] for line in lines(written.out)] == ["unreachable"]


@pytest.mark.parametrize(
    "argv",
    [["nonsense"], ["device_snapshot", "--telescope", "North"], []],
)
def test_what_makes_no_sense_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", *argv]) == ExitCode.USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("flag", "value"), [("--max-rate", "0"), ("--device-type", "m" * 999)])
def test_a_value_no_gateway_would_take_is_told_with_the_flag_it_was_given_by(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["watch", "device_snapshot", flag, value]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"skygw: {flag}: ")


def test_a_node_nobody_knows_is_said_before_anything_is_subscribed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", as_json({"items": [], "total": 0, "page": 1, "size": 100, "pages": 1}))
    assert run(["watch", "device_snapshot", "--node", "Nowhere"]) == ExitCode.FAILED
    assert "No installation has the name “Nowhere”" in capsys.readouterr().err


class OnATerminal:
    """The program on a terminal of its own, 100 columns wide."""

    def __init__(self, *argv: str, **environment: str) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skygw.cli.main", "watch", *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            # Whoever runs the tests in the background of a shell ignores Ctrl-C, and hands that on.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        self.written = ""

    async def until(self, text: str) -> None:
        with trio.fail_after(PATIENCE_S):
            while text not in self.written:
                await self._read()

    async def _read(self) -> None:
        await trio.lowlevel.wait_readable(self._fd)
        self.written += os.read(self._fd, 65_536).decode()

    async def interrupted(self, by: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal; how it ended, and all it wrote."""
        self.process.send_signal(by)
        code = await trio.to_thread.run_sync(partial(self.process.wait, PATIENCE_S))
        try:
            while True:
                await self._read()
        except OSError:  # nobody writes there any more
            os.close(self._fd)
        return code


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
async def test_on_a_terminal_the_latest_values_are_a_table_until_ctrl_c(
    server: StreamServer, environment: dict[str, str]
) -> None:
    watching = OnATerminal("device_snapshot", **environment)
    served = await (await server.door.accept()).asked()
    served.event("s1", data={"uid": UID, "name": "Mount \x1b[2J", "state": "slewing"})
    await watching.until("state=slewing")
    served.live("s2")
    served.event("s3", data={"uid": UID, "name": "Mount \x1b[2J", "state": "tracking"})
    await watching.until("state=tracking")
    code = await watching.interrupted()

    assert code == 0
    assert served.options == {"include_unchanged": True}
    assert r"Mount \x1b[2J" in watching.written
    assert "\x1b[2J" not in watching.written
    assert "device_snapshot · live · 1 resources" in watching.written
    assert "\x1b[3A" in watching.written  # the table is drawn over itself
    assert watching.written.rstrip().endswith("last position: s3 (--after s3 resumes from there)")
    assert watching.written.rindex("\x1b[?25h") > watching.written.rindex("\x1b[?25l")
    assert ("\x1b[1m" in watching.written) is not bool(environment)


async def test_sigterm_ends_it_with_the_last_position_too(server: StreamServer) -> None:
    watching = OnATerminal("telescope_log")
    served = await (await server.door.accept()).asked()
    served.live("l3")
    await watching.until("position l3")
    code = await watching.interrupted(signal.SIGTERM)

    assert code == 0
    assert "last position: l3" in watching.written


async def test_a_table_of_chosen_fields_asks_for_the_name_of_each_resource_too(server: StreamServer) -> None:
    watching = OnATerminal("device_snapshot", "--fields", "state")
    served = await (await server.door.accept()).asked()
    served.event("s1", data={"uid": UID, "name": "North mount", "state": "slewing"})
    await watching.until("slewing")
    code = await watching.interrupted()

    assert code == 0
    assert served.options["fields"] == ["state", "name"]
    assert "North mount" in watching.written


async def test_on_a_terminal_events_are_lines(server: StreamServer) -> None:
    watching = OnATerminal("telescope_log")
    served = await (await server.door.accept()).asked()
    served.event("l1", data={"message": "cooling \x1b]0;title\x07", "level": "info"})
    served.live("l1")
    served.say("event_gap", "l5", **{"from": "l1", "to": "l5", "count": 4, "reason": "declared_by_node"})
    await watching.until("4 missing")
    served.live("l9")
    served.gateway_end.say(Ping(id="read"))
    await served.gateway_end.hear()  # its pong: the beat has come
    code = await watching.interrupted()

    assert code == 0
    assert r"2026-07-01 03:00:00  -  message=cooling \x1b]0;title\x07 level=info" in watching.written
    assert "live: what follows is news (position l1)" in watching.written
    assert "gap: 4 missing (declared_by_node)" in watching.written
    assert "last position: l9" in watching.written
