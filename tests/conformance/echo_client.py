"""The client under test: an echo over the node's own link, once for each case that the suite's server offers."""

import sys
from functools import partial

import trio

from skygw.client.link import LinkEnded, open_link
from skygw.protocol.limits import MIB
from skygw.websocket import LinkClosed, WebSocket
from tests.conformance.subprotocol_relay import subprotocol_relay

MAX_MESSAGE_BYTES = 16 * MIB
"""The largest message of the suite."""

AGENT = "node-client"


async def echo(link: WebSocket) -> None:
    try:
        while True:
            await link.send(await link.receive())
    except LinkClosed:
        return


async def main(url: str) -> None:
    """Runs every case and asks for the report, which ends the server."""
    async with subprotocol_relay(url) as relay:
        connect = partial(
            open_link,
            token="t",
            connect_timeout_s=10.0,
            disconnect_timeout_s=5.0,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )
        async with connect(f"{relay}/getCaseCount") as link:
            count = int(await link.receive_one())
        for case in range(1, count + 1):
            try:
                async with connect(f"{relay}/runCase?case={case}&agent={AGENT}") as link:
                    await echo(link)
            except LinkEnded as end:
                sys.stderr.write(f"case number {case}: {end}\n")
        async with connect(f"{relay}/updateReports?agent={AGENT}") as link:
            await echo(link)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
