"""`skygw`: which commands there are, and what becomes of whatever they raise. Each is loaded when it is called."""

import errno
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from skygw import __version__
from skygw.cli.terminal import CommandFailed, ExitCode, Terminal
from skygw.errors import StartupError

COMMANDS = {
    "serve": ("skygw.cli.serve:serve", "Run the gateway."),
    "demo": ("skygw.cli.demo:demo", "Show the main job: a gateway, simulated installations, every promise tested."),
    "simulate": ("skygw.cli.simulate:simulate", "Run a fleet of simulated installations against a gateway."),
    "nodes": ("skygw.cli.nodes:nodes", "List the installations and whether they are connected."),
    "why": ("skygw.cli.nodes:why", "Say what is the matter with a node, and what to do about it."),
    "call": ("skygw.cli.call:call", "Ask a node directly and print or save what it answers."),
    "stop": ("skygw.cli.stop:stop", "Bring telescopes into a safe state, with proof per device."),
    "watch": ("skygw.cli.watch:app", "Show a stream live: the latest values, or events as they happen."),
    "token": ("skygw.cli.token:token", "Make a token with the development key of this machine."),
    "migrate": ("skygw.cli.migrate:migrate", "Bring the database up to date, as its owner."),
    "doctor": ("skygw.cli.doctor:doctor", "Check everything the gateway needs before it starts."),
}

LEASE_COMMANDS = {
    "acquire": ("skygw.cli.lease:acquire", "Take control of a telescope or a shared device."),
    "renew": ("skygw.cli.lease:renew", "Keep control for another while."),
    "release": ("skygw.cli.lease:release", "Give control back."),
    "break": ("skygw.cli.lease:break_off", "Take control from its holder."),
    "list": ("skygw.cli.lease:list_leases", "Show who has control of what."),
}


def application() -> App:
    """The command line, nothing of it loaded yet."""
    app = App(
        name="skygw",
        help="The SkyNode gateway: one WebSocket per telescope installation, honest round trips on it.",
        version=__version__,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(target, name=name, help=summary)
    lease = App(name="lease", help="Manual control leases: who may move what, and until when.", help_format="plaintext")
    for name, (target, summary) in LEASE_COMMANDS.items():
        lease.command(target, name=name, help=summary)
    app.command(lease)
    app.command("skygw.cli.command:command", name="command", help="Send a command, follow it, look at what was sent.")
    return app


_OF_THE_MACHINE = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
)
"""What a person can put right on the machine: rights, paths, room on the disk."""


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code. What a person can put right is a sentence; our own faults keep a traceback."""
    terminal = Terminal(as_json="--json" in argv)
    try:
        ended = application()(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _refused(terminal, " ".join(str(error).split()), code="usage")
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (Exception, SystemExit, BaseExceptionGroup) as error:
        cause = _only_cause(error)
        if isinstance(cause, KeyboardInterrupt):
            return ExitCode.INTERRUPTED
        if isinstance(cause, BrokenPipeError | SystemExit):
            # Whoever read our output has seen enough; the terminal library says so by asking to exit, and in a nursery
            # that comes as a group. The interpreter flushes stdout once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FAILED
        if isinstance(cause, StartupError):
            return _refused(terminal, str(cause), code="startup")
        if isinstance(cause, CommandFailed):
            return _failed(terminal, cause)
        if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
            where = f"{cause.filename}: " if cause.filename else ""
            return _failed(terminal, CommandFailed(f"{where}{cause.strerror}.", {"code": "internal"}))
        raise
    return ended if isinstance(ended, int) else ExitCode.OK


def _only_cause(error: BaseException) -> BaseException:
    """What a nursery wrapped, if it is one thing; a `StartupError` says more than what it brought down with it."""
    while isinstance(error, BaseExceptionGroup):
        startup, _ = error.split(StartupError)
        inside = (startup or error).exceptions
        if len(inside) != 1:
            return error
        error = inside[0]
    return error


def _refused(terminal: Terminal, sentence: str, *, code: str) -> int:
    terminal.complaint(sentence)
    if terminal.as_json:
        terminal.json({"detail": sentence, "code": code})
    return ExitCode.USAGE


def _failed(terminal: Terminal, error: CommandFailed) -> int:
    terminal.complaint(str(error))
    if terminal.as_json:
        terminal.json({"detail": str(error), **error.problem})
    return error.exit_code


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its number; nothing dies of a name.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
