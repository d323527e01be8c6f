"""Ends the sessions of installations that the hub has revoked, deleted or made inactive (within 5 s, contract §2)."""

import logging

import trio

from skygw.errors import RoutingUnavailable
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.loopback import LOOPBACK_ID
from skygw.nodes.ports import InstallationDirectory
from skygw.nodes.session_token import STAY_AWAY_MS
from skygw.protocol.close_codes import CloseCode

log = logging.getLogger("skygw.nodes")

LOOK_EVERY_S = 2.0
"""One query for all connected installations; with the query's own time well under the 5 s promised."""


async def watch_revocations(registry: ConnectionRegistry, directory: InstallationDirectory) -> None:
    """Runs until cancelled. While the database is away, or refuses what it is asked, nobody new is refused, and nobody
    new is let in either.
    """
    while True:
        await trio.sleep(LOOK_EVERY_S)
        connected = [session.binding.install_id for session in registry if session.binding.install_id != LOOPBACK_ID]
        if not connected:
            continue
        try:
            refused = set(await directory.refused_among(connected))
        except RoutingUnavailable:
            continue  # said where the database was asked
        for session in registry:
            if session.binding.install_id in refused:
                log.warning("installation revoked", extra={"install_id": str(session.binding.install_id)})
                session.announce_end(
                    "revoked: this installation may not connect any more; follow your link-loss policy",
                    reconnect_after_ms=STAY_AWAY_MS,
                )
                session.end(CloseCode.REVOKED, "revoked: this installation may not connect any more")
