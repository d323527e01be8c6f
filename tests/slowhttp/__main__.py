"""`python -m tests.slowhttp`: `slowhttptest` in its four modes against a whole gateway, and what others notice of it.

Prints how long `GET /healthz` takes for others with and without the attack, side by side in one run. It needs the
program itself: `apt-get install slowhttptest`.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio
from rich.console import Console
from rich.table import Table

from tests.benchmarks.processes import worker
from tests.serving.served import Peer

OTHERS = 8
"""Connections that go on asking, from an address of their own: the attackers' is soon at its cap."""

ASKED_EVERY_S = 0.1
UNDER_WAY_S = 5.0
"""What the attack takes to have all its connections."""

CALLER = "127.0.0.2"


@dataclass(frozen=True)
class Mode:
    name: str
    path: str
    arguments: tuple[str, ...]


# As in the examples of its manual, but for the number of connections, which is the same in all four.
MODES = (
    Mode("-H slow heads", "/healthz", ("-H", "-r", "200", "-i", "10", "-x", "24")),
    Mode("-B slow bodies", "/internal/commands", ("-B", "-r", "200", "-i", "10", "-s", "8192", "-x", "10")),
    Mode("-R ranges", "/healthz", ("-R", "-r", "500", "-t", "HEAD", "-a", "10", "-b", "3000")),
    Mode(
        "-X slow reading",
        "/docs/openapi-internal.json",
        ("-X", "-r", "200", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"),
    ),
)


@dataclass
class Waits:
    """Of answers, in seconds; and how often a connection was lost."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * share)] if self.seconds else float("nan")


async def ask(host: str, port: int, waits: Waits, *, late_s: float) -> None:
    """Ask and ask, evenly; connect again when cut."""
    await trio.sleep(late_s)
    while True:
        sock = trio.socket.socket()
        try:
            await sock.bind((CALLER, 0))
            await sock.connect((host, port))
            stream = trio.SocketStream(sock)
            await ask_on(Peer(stream, stream), waits)
        except (trio.BrokenResourceError, OSError):
            waits.lost += 1
            await trio.sleep(ASKED_EVERY_S)
        finally:
            sock.close()


async def ask_on(peer: Peer, waits: Waits) -> None:
    while True:
        asked_at = trio.current_time()
        await peer.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        status, _ = await peer.response()
        if status != 200:
            raise trio.BrokenResourceError
        waits.seconds.append(trio.current_time() - asked_at)
        await trio.sleep_until(asked_at + ASKED_EVERY_S)


async def waits_for(host: str, port: int, *, within_s: float) -> Waits:
    waits = Waits()
    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for number in range(OTHERS):
                nursery.start_soon(lambda late: ask(host, port, waits, late_s=late), number * ASKED_EVERY_S / OTHERS)
    return waits


async def attack(url: str, token: str, mode: Mode, *, connections: int, for_s: float) -> str:
    """Run it to its end; its last word on its connections. The token gets it as far as the handlers, through a header
    into which the program writes whatever it is told.
    """
    accept = f"*/*\r\nAuthorization: Bearer {token}"
    command = ["slowhttptest", *mode.arguments, "-m", accept, "-c", str(connections), "-l", str(int(for_s)), "-p", "3"]
    done = await trio.run_process(
        [*command, "-u", url + mode.path], capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout.decode(errors="replace"))
    if "No open connections left" in said:
        return "all refused or cut"
    counts = dict(re.findall(r"^(connected|closed):\s+(\d+)", said, re.MULTILINE))
    if not counts:
        raise RuntimeError(f"slowhttptest did not run: {said.strip()}")
    return f"{counts['closed']} cut, {counts['connected']} left"


async def run(seconds: float, connections: int) -> Table:
    table = Table("attack", "others' p50 quiet", "p99 quiet", "p50 attacked", "p99 attacked", "×", "lost", "attackers")
    async with worker("tests.slowhttp.gateway") as gateway:
        said_first = await gateway.says()
        url, token = str(said_first["internal"]), str(said_first["token"])
        host, _, port = url.removeprefix("http://").partition(":")
        for mode in MODES:
            quiet = await waits_for(host, int(port), within_s=seconds)
            said: list[str] = []
            async with trio.open_nursery() as nursery:

                async def attacking(mode: Mode = mode, said: list[str] = said) -> None:
                    said.append(await attack(url, token, mode, connections=connections, for_s=UNDER_WAY_S + seconds))

                nursery.start_soon(attacking)
                await trio.sleep(UNDER_WAY_S)
                attacked = await waits_for(host, int(port), within_s=seconds)
            table.add_row(*row_of(mode, quiet, attacked), said[0])
    return table


def row_of(mode: Mode, quiet: Waits, attacked: Waits) -> Sequence[str]:
    def ms(seconds: float) -> str:
        return f"{seconds * 1e3:.1f} ms"

    return (
        mode.name,
        ms(quiet.quantile(0.5)),
        ms(quiet.quantile(0.99)),
        ms(attacked.quantile(0.5)),
        ms(attacked.quantile(0.99)),
        f"{attacked.quantile(0.99) / quiet.quantile(0.99):.2f}",
        f"{attacked.lost}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.slowhttp", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring, quiet and attacked, in each mode")
    parser.add_argument("--connections", type=int, default=1_000, help="of the attacker (its own default is 50)")
    arguments = parser.parse_args()
    if shutil.which("slowhttptest") is None:
        sys.exit("slowhttptest is missing: install it with `apt-get install slowhttptest`")
    table = trio.run(run, arguments.seconds, arguments.connections)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
