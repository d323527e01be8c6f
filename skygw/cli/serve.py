"""`skygw serve`: settings in, one ready line out, and then the gateway runs until it is told to stop."""

import os
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from skygw import __version__
from skygw.cli.configuration import load_settings
from skygw.cli.flags import SettingsFlags, given
from skygw.cli.process import collect_in_calm, collections_by_hand, raise_file_limit
from skygw.cli.terminal import ExitCode, Terminal
from skygw.observability.logs import configure_logs
from skygw.settings import Settings


class Addresses(Protocol):
    """Where a running gateway listens."""

    @property
    def node_url(self) -> str: ...
    @property
    def internal_url(self) -> str: ...


class Run(Protocol):
    """The composition root: started once both listeners accept; returns when it has drained."""

    async def __call__(self, settings: Settings, *, task_status: trio.TaskStatus[Addresses]) -> None: ...


def serve(*, flags: SettingsFlags | None = None, config: Path | None = None) -> int:
    """Run the gateway until SIGTERM or Ctrl-C, which drain it. One JSON line on stdout says that it is ready.

    Parameters
    ----------
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    settings = load_settings(given(flags), config=config)
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    # The whole gateway hangs on this import; a bad setting is said without waiting for it.
    from skygw.app import run

    raise_file_limit(settings.max_connections)
    with collections_by_hand():
        trio.run(partial(serve_until_done, settings, run=run, terminal=Terminal()))
    return ExitCode.OK


async def serve_until_done(settings: Settings, *, run: Run, terminal: Terminal) -> None:
    """Start `run`, print the ready line, and wait for its end. Signals are `run`'s to handle."""
    async with trio.open_nursery() as beside:
        beside.start_soon(collect_in_calm)
        async with trio.open_nursery() as nursery:
            listening: Addresses = await nursery.start(partial(run, settings))
            terminal.json(
                {
                    "event": "ready",
                    "node": listening.node_url,
                    "internal": listening.internal_url,
                    "pid": os.getpid(),
                    "version": __version__,
                }
            )
        beside.cancel_scope.cancel()
