"""`skygw demo`: shows the main job on this machine, each step with its time, and says whether all of it held."""

import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Annotated

import trio
from cyclopts import Parameter

from skygw.cli.terminal import AsJson, ExitCode, Progress, Terminal
from skygw.demo.run import Keep, Plan, StepResult, demonstrate
from skygw.demo.stage import Gateway
from skygw.errors import StartupError
from skygw.observability.logs import configure_logs


def demo(
    *,
    data_dir: Path | None = None,
    nodes: int = 6,
    seed: str = "demo",
    time_scale: float = 20.0,
    keep: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Start a gateway with simulated installations and put its promises to the test. Exit code 0: all of them held.

    Parameters
    ----------
    data_dir
        Where everything is kept; a folder that is removed afterwards unless given.
    nodes
        How many installations; 5 or more.
    seed
        The same seed gives the same sites.
    time_scale
        Simulated seconds per second.
    keep
        Leave everything running at the end, until Ctrl-C.
    """
    if not 5 <= nodes <= 200:
        raise StartupError(f"--nodes is {nodes}, but should be from 5 to 200")
    if not 1 <= time_scale <= 100:
        raise StartupError(f"--time-scale is {time_scale:g}, but should be from 1 to 100")
    # What goes wrong is part of the show; what is no step's doing is still said.
    configure_logs(log_format="console", level="error")
    terminal = Terminal(as_json=as_json)
    began = monotonic()
    with ExitStack() as stack:
        directory = data_dir or Path(stack.enter_context(TemporaryDirectory(prefix="skygw-demo-")))
        plan = Plan(directory=directory.absolute(), nodes=nodes, seed=seed, time_scale=time_scale)
        audience = Shown(terminal, stack.enter_context(terminal.progress("starting…")))
        results = trio.run(_until_a_signal, partial(demonstrate, plan, audience, keep=_keeper(terminal, keep=keep)))
    if results is None:
        terminal.complaint("interrupted; everything that was started has been ended")
        return ExitCode.INTERRUPTED
    took_s = monotonic() - began
    wrong = [result for result in results if not result.ok]
    if as_json:
        terminal.json({"ok": not wrong, "steps": len(results), "failed": len(wrong), "tookS": round(took_s, 3)})
    elif wrong:
        terminal.complaint(f"{len(wrong)} of {len(results)} steps failed, the first: {wrong[0].title}: {wrong[0].said}")
    else:
        terminal.line(f"All {len(results)} steps held, in {took_s:.1f} s.")
    return ExitCode.FAILED if wrong else ExitCode.OK


class Shown:
    """Each step as a line when it has ended, and what is under way while it is."""

    def __init__(self, terminal: Terminal, progress: Progress) -> None:
        self._terminal = terminal
        self._progress = progress

    def begins(self, title: str) -> None:
        self._progress.update(f"{title}…")

    def ended(self, result: StepResult) -> None:
        if self._terminal.as_json:
            self._terminal.json(
                {"step": result.title, "ok": result.ok, "tookS": round(result.took_s, 3), "said": result.said}
            )
        else:
            self._terminal.line(f"{'ok' if result.ok else 'FAILED':6} {result.took_s:6.2f} s  {result.title}")
            self._terminal.line(f"{'':17}{result.said}")


async def _until_a_signal(show: Callable[[], Awaitable[list[StepResult]]]) -> list[StepResult] | None:
    """What the steps came to, or None when a signal ended them; the database is stopped in order either way."""
    results: list[StepResult] | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_by_signal, nursery.cancel_scope)
        results = await show()
        nursery.cancel_scope.cancel()
    return results


async def _cancel_by_signal(everything: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
    everything.cancel()


def _keeper(terminal: Terminal, *, keep: bool) -> Keep | None:
    """What waits for Ctrl-C or SIGTERM with everything running, if that is wanted."""

    async def wait(gateway: Gateway) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            terminal.note(
                f"Everything goes on until Ctrl-C. To look at it: "
                f"SKYGW_DATA_DIR={gateway.settings.data_dir} skygw nodes --url {gateway.running.internal_url}"
            )
            await anext(signals)

    return wait if keep else None
