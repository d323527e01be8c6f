"""`skygw simulate`: a fleet of simulated installations against any gateway, until Ctrl-C."""

import json
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import trio

from skygw.cli.configuration import load_settings
from skygw.cli.terminal import AsJson, ExitCode, Progress, Terminal
from skygw.client.node import Token
from skygw.errors import StartupError
from skygw.ids import InstallId
from skygw.observability.logs import configure_logs
from skygw.settings import Settings
from skygw.sim.blueprint import Layout, SiteBlueprint
from skygw.sim.fleet import Fleet, FleetCounts, draw_nodes, open_fleet
from skygw.sim.line import Line
from skygw.sim.line_profiles import line_of
from skygw.sim.node import NodeHabits, TokenOf
from skygw.sim.scenarios import Scenario
from skygw.sim.seeds import chance_of
from skygw.sim.traffic import Counts

DEFAULT_URL = "ws://127.0.0.1:5002"
NODE_PATH = "/v1/ws/node"
MOST_NODES = 5_000
LOOK_S = 1.0
LINE_EVERY_LOOKS = 5
FILES_PER_NODE = 6
"""A socket, and what SQLite holds open."""
FILES_PER_LINE = 3
"""A listener, and both ends of a connection."""


def simulate(
    *,
    nodes: int = 20,
    url: str = DEFAULT_URL,
    seed: str = "fleet",
    telescopes: int = 3,
    time_scale: float = 1.0,
    scenario: Scenario = Scenario.CALM,
    layout: Layout = Layout.WIRED,
    faults: str | None = None,
    connects_per_s: float = 50.0,
    duration_s: float | None = None,
    tokens: Path | None = None,
    journals: Path | None = None,
    data_dir: Path | None = None,
    config: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Run simulated installations until Ctrl-C; they come back whenever the gateway does.

    Their records are written into the database of this machine's gateway, or the one of SKYGW_DATABASE_OWNER_URL, and
    their tokens made with its development key. A gateway of others knows its installations itself: see --tokens. It
    holds at most SKYGW_MAX_CONNECTIONS_PER_ADDRESS of them from this machine.

    Parameters
    ----------
    nodes
        How many installations; every site has one for the observatory and one for each telescope.
    url
        The gateway's node listener.
    seed
        The same seed gives the same sites, uids and troubles, those of their lines too.
    telescopes
        Telescopes of a site.
    time_scale
        Simulated seconds per second.
    scenario
        What goes wrong: nothing (calm), devices, disks and clocks (faulty), the weather (storm), or what is known of it
        (weather-lost).
    layout
        How a roof's installation knows the weather: by a wire (wired), or from another installation, through the hub
        (remote-weather).
    faults
        Give every installation a bad line of its own: lte, satellite or dsl, changed or made by key=value pairs, as in
        dsl,latency-ms=150,cut-every-s=60. The keys stand in docs/simulation.md.
    connects_per_s
        How fast they come.
    duration_s
        End by itself after so many seconds; exit code 1 unless all were connected then.
    tokens
        A JSON file with a token by installation uid. Nothing is written into a database then.
    journals
        A folder for the device journal of every site; without it they are kept in memory.
    data_dir
        Where the gateway keeps its key and its database, if not where the settings say.
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    _check(nodes=nodes, telescopes=telescopes, time_scale=time_scale, connects_per_s=connects_per_s)
    if duration_s is not None and not 0 < duration_s < inf:
        raise StartupError(f"--duration-s is {duration_s:g}, but should be a number of seconds above 0")
    line = None if faults is None else _line(faults)
    settings = load_settings({"data_dir": data_dir}, config=config)
    socket_url = _socket_url(url)
    blueprints = draw_nodes(seed, nodes, telescopes_per_site=telescopes, layout=layout)
    token_of = _tokens_from(tokens) if tokens is not None else _development_tokens(settings)
    _allow_files(nodes * (FILES_PER_NODE + (FILES_PER_LINE if line else 0)))
    configure_logs(log_format=settings.log_format, level="error")
    terminal = Terminal(as_json=as_json)
    if tokens is None:
        with terminal.progress(f"provisioning {nodes} installations…"):
            _provision(settings, blueprints)
    with TemporaryDirectory(prefix="skygw-simulate-") as directory:
        opened = partial(
            open_fleet,
            blueprints,
            directory=Path(directory),
            habits=NodeHabits(url=socket_url, token_of=token_of, line=line, line_seed=seed),
            time_scale=time_scale,
            journal_directory=journals,
            connects_per_s=connects_per_s,
        )
        seen = trio.run(partial(_run, opened, partial(_play, scenario, seed), duration_s, terminal))
    _tell(terminal, seen)
    return ExitCode.FAILED if duration_s is not None and seen.fleet.connected < seen.fleet.nodes else ExitCode.OK


@dataclass(frozen=True)
class _Seen:
    """What is told."""

    fleet: FleetCounts
    lines: Counts | None

    @classmethod
    def of(cls, fleet: Fleet) -> "_Seen":
        return cls(fleet.counts(), fleet.line_counts())


async def _play(scenario: Scenario, seed: str, fleet: Fleet) -> None:
    """Everything a fleet does, with its troubles; until cancelled."""
    await fleet.run(scenario, chance_of(seed, "scenario"))


async def _run(
    opened: Callable[[], AbstractContextManager[Fleet]],
    play: Callable[[Fleet], Awaitable[None]],
    duration_s: float | None,
    terminal: Terminal,
) -> _Seen:
    """The counts as they stood when it was told to end, by a signal or by the time."""
    with opened() as fleet, terminal.progress("connecting…") as progress:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, fleet)
            nursery.start_soon(_report, fleet, terminal, progress)
            with (
                trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
                trio.move_on_after(float("inf") if duration_s is None else duration_s),
            ):
                await anext(signals)
            seen = _Seen.of(fleet)
            nursery.cancel_scope.cancel()
            progress.update("ending: every installation puts its files in order…")
        return seen


async def _report(fleet: Fleet, terminal: Terminal, progress: Progress) -> None:
    """A line that changes for a person; a line now and then for a program or a pipe."""
    looks = 0
    while True:
        await trio.sleep(LOOK_S)
        looks += 1
        seen = _Seen.of(fleet)
        progress.update(_said(seen))
        if looks % LINE_EVERY_LOOKS == 0 and (terminal.as_json or not terminal.out_is_a_terminal):
            _tell(terminal, seen)


def _tell(terminal: Terminal, seen: _Seen) -> None:
    if terminal.as_json:
        told = _camel_case(asdict(seen.fleet))
        if seen.lines is not None:
            told["lines"] = _camel_case(asdict(seen.lines))
        terminal.json(told)
    else:
        terminal.line(_said(seen))


def _camel_case(counts: dict[str, Any]) -> dict[str, Any]:
    return {
        first + "".join(map(str.title, rest)): counts[name] for name in counts for first, *rest in [name.split("_")]
    }


def _said(seen: _Seen) -> str:
    fleet, lines = seen.fleet, seen.lines
    faults = trouble = ""
    if lines is not None:
        faults = (
            f"; lines: {lines.stalls} stalls, {lines.cuts} cuts, {lines.resets} resets, {lines.half_opens} half-open, "
            f"{lines.losses} losses, {lines.flips} flips, {lines.bytes_up / 1e6:.1f} MB up, "
            f"{lines.bytes_down / 1e6:.1f} MB down"
        )
    if fleet.last_trouble:
        trouble = f"; {fleet.last_trouble}"
    return (
        f"{fleet.connected} of {fleet.nodes} connected, {fleet.commands} commands, {fleet.calls} calls, "
        f"{fleet.reconnects} reconnects{faults}{trouble}"
    )


def _line(spec: str) -> Line:
    try:
        return line_of(spec)
    except ValueError as error:
        raise StartupError(f"--faults: {error}") from None


def _check(*, nodes: int, telescopes: int, time_scale: float, connects_per_s: float) -> None:
    for name, value, least, most in (
        ("nodes", nodes, 2, MOST_NODES),
        ("telescopes", telescopes, 1, 100),
        ("time-scale", time_scale, 0.01, 1_000),
        ("connects-per-s", connects_per_s, 0.1, 10_000),
    ):
        if not least <= value <= most:
            raise StartupError(f"--{name} is {value:g}, but should be from {least:g} to {most:g}")


def _socket_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in {"ws", "wss"} or not parts.hostname:
        raise StartupError(f"the gateway's address is “{url}”, but should look like {DEFAULT_URL}: correct --url")
    return parts._replace(scheme=scheme, path=parts.path.rstrip("/") or NODE_PATH).geturl()


def _tokens_from(path: Path) -> TokenOf:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartupError(f"the tokens in {path} cannot be read: {error}") from None
    if not isinstance(held, dict):
        raise StartupError(f"{path} should hold one JSON object, with a token by installation uid")

    async def token_of(install_id: InstallId) -> Token:
        token = held.get(str(install_id))
        if not isinstance(token, str):
            raise LookupError(f"{path} has no token for the installation {install_id}")
        return Token(token)

    return token_of


def _development_tokens(settings: Settings) -> TokenOf:
    from skygw.auth import development
    from skygw.demo.tokens import node_tokens

    if settings.has_keys:
        raise StartupError(
            "the gateway of these settings goes by its issuer's keys and takes no development tokens: "
            "give the issuer's with --tokens"
        )
    return node_tokens(development.load(settings.data_dir), audience=settings.node_audiences[0])


def _provision(settings: Settings, blueprints: Sequence[SiteBlueprint]) -> None:
    from skygw.database.embedded import find_running
    from skygw.demo.records import provision_sites

    given = settings.database_owner_url
    url = find_running(settings.data_dir) if given is None else given.get_secret_value()
    if url is None:
        raise StartupError(
            f"no gateway runs on {settings.data_dir}, so there is no database to make installations in: start it with "
            "“skygw serve”, or set SKYGW_DATABASE_OWNER_URL, or give the tokens of existing ones with --tokens"
        )
    trio.run(provision_sites, url, blueprints)


def _allow_files(wanted: int) -> None:
    """As many open files as the fleet needs, if this user may have them."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += 1_000
    if now != resource.RLIM_INFINITY and now < wanted:
        most_allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_allowed, most))
