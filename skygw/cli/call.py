"""`skygw call`: one direct request to one node, its answer on stdout or in a file, whole or not at all."""

import json
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import httpx
import trio

from skygw.cli.running_gateway import Reach, RunningGateway, node_path, reach
from skygw.cli.terminal import AsJson, CommandFailed, ExitCode, Progress, Terminal
from skygw.errors import StartupError

MAX_SHOWN_BYTES = 1024 * 1024
"""Of an answer that is held in memory to be shown."""
PATIENCE_S = 10.0
LONGEST_WAIT_S = 3_600.0
"""Beyond the request's own timeout: the gateway answers at its deadline, and that takes a moment to arrive."""


def call(
    node: str,
    operation: str,
    /,
    *,
    params: str = "{}",
    output: Path | None = None,
    timeout_s: float = 30.0,
    connect_wait_s: float = 0.0,
    offset: int | None = None,
    length: int | None = None,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Ask a node directly. Such a request reads or transfers; only commands move hardware.

    Parameters
    ----------
    node
        Its number, uid or name.
    operation
        What to ask for, such as asset.read or device.read.
    params
        A JSON object the operation takes.
    output
        File the answer goes to. It appears there only once it is whole.
    timeout_s
        Seconds for all of it.
    connect_wait_s
        Seconds of those to wait for a node that is away.
    offset
        First byte wanted.
    length
        Number of bytes wanted.
    """
    if not 0 < timeout_s <= LONGEST_WAIT_S:
        raise StartupError(f"--timeout-s is {timeout_s:g}, but should be more than 0 and at most {LONGEST_WAIT_S:g}")
    body = {
        "operation": operation,
        "params": _object(params),
        "timeoutS": timeout_s,
        "connectWaitS": connect_wait_s,
        "offset": offset,
        "length": length,
        "requestId": f"cli-{uuid4()}",
    }
    body = {name: value for name, value in body.items() if value is not None}
    return trio.run(partial(_call, node, body, output, timeout_s, reach_by, Terminal(as_json=as_json)))


async def _call(
    which: str, body: dict[str, Any], output: Path | None, timeout_s: float, by: Reach | None, terminal: Terminal
) -> int:
    async with reach(by) as gateway:
        with terminal.progress(f"asking {which}…") as progress:
            node = await gateway.node(which)
            try:
                async with gateway.stream(
                    node_path(node, "direct"), body, timeout_s=timeout_s + PATIENCE_S
                ) as response:
                    if output is not None:
                        answer = await _save(response, output, progress)
                    elif terminal.as_json or terminal.out_is_a_terminal:
                        answer = await _hold(response)
                    else:
                        answer = await _copy(response, sys.stdout.buffer, progress)
            except CommandFailed as error:
                raise await _with_outcome(gateway, error, str(body["requestId"])) from error
    _report(answer, output, terminal)
    return ExitCode.OK


async def _save(response: httpx.Response, path: Path, progress: Progress) -> dict[str, Any]:
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as file:
            answer = await _copy(response, file, progress)
        draft.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written ({error.strerror}): choose another --output") from error
    finally:
        draft.unlink(missing_ok=True)
    return answer


async def _copy(response: httpx.Response, file: BinaryIO, progress: Progress) -> dict[str, Any]:
    digest, size = sha256(), 0
    async for chunk in response.aiter_bytes():
        file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        progress.update(f"{size} bytes received…")
    file.flush()
    return {**_described(response), "bytes": size, "sha256": digest.hexdigest()}


async def _hold(response: httpx.Response) -> dict[str, Any]:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_SHOWN_BYTES:
            raise CommandFailed(f"the answer is longer than {MAX_SHOWN_BYTES} bytes: name a file with --output")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise CommandFailed("the answer is not text: name a file with --output") from None
    return {**_described(response), "bytes": len(content), "sha256": sha256(content).hexdigest(), "text": text}


def _described(response: httpx.Response) -> dict[str, Any]:
    return {"contentType": response.headers.get("content-type"), "epoch": response.headers.get("x-skygw-epoch")}


def _report(answer: dict[str, Any], output: Path | None, terminal: Terminal) -> None:
    if terminal.as_json:
        terminal.json({**answer, "output": None if output is None else str(output)})
    elif output is not None:
        terminal.note(f"{output}: {answer['bytes']} bytes, SHA-256 {answer['sha256']}")
    elif "text" in answer:
        for line in answer["text"].splitlines():
            terminal.line(line)


async def _with_outcome(gateway: RunningGateway, error: CommandFailed, request_id: str) -> CommandFailed:
    """An answer that broke off says nothing about why; the gateway still knows for a minute."""
    if error.problem.get("code") != "unreachable" or error.problem.get("outcome") != "unknown":
        return error
    try:
        known = await gateway.get(f"/internal/calls/{request_id}")
    except CommandFailed:
        return error
    return CommandFailed(f"The answer broke off: {known.get('reason')}, outcome {known.get('outcome')}.", known)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StartupError(f"--params is “{text[:80]}”, but should be a JSON object such as {{}}")
    return value
