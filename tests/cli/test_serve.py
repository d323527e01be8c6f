"""`serve` says once, in one line, that the gateway is ready and where."""

import io
import json
import os
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from skygw.cli.serve import Addresses, serve_until_done
from skygw.cli.terminal import Terminal
from skygw.errors import StartupError
from skygw.settings import Settings


@dataclass(frozen=True)
class Listening:
    node_url: str = "http://127.0.0.1:1"
    internal_url: str = "http://127.0.0.1:2"


async def test_one_json_line_says_that_it_is_ready() -> None:
    out = io.StringIO()
    ready_before_the_end = False

    async def run(settings: Settings, *, task_status: trio.TaskStatus[Addresses]) -> None:
        nonlocal ready_before_the_end
        task_status.started(Listening())
        await trio.testing.wait_all_tasks_blocked()
        ready_before_the_end = bool(out.getvalue())

    await serve_until_done(Settings(), run=run, terminal=Terminal(out=out))
    assert ready_before_the_end
    [line] = out.getvalue().splitlines()
    ready = json.loads(line)
    assert ready.pop("version")
    assert ready == {
        "event": "ready",
        "node": "http://127.0.0.1:1",
        "internal": "http://127.0.0.1:2",
        "pid": os.getpid(),
    }


async def test_a_gateway_that_cannot_start_says_nothing_on_stdout() -> None:
    out = io.StringIO()

    async def run(settings: Settings, *, task_status: trio.TaskStatus[Addresses]) -> None:
        raise StartupError("the port is taken")

    with pytest.raises(ExceptionGroup) as caught:
        await serve_until_done(Settings(), run=run, terminal=Terminal(out=out))
    assert caught.group_contains(StartupError, match="the port is taken")
    assert out.getvalue() == ""
