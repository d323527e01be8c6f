"""Asks a gateway for things as a service of the hub does."""

from typing import Any
from uuid import uuid4

import httpx

from skygw.sim.sky import M13
from skygw.sim.station import Station

UNPARK = {"command_type": "mount.unpark"}
TRACK_M13 = {
    "command_type": "mount.track",
    "target": {"position_type": "equatorial", "ra_deg": M13.ra_deg, "dec_deg": M13.dec_deg},
}
LONG_SLOWNESS = 1_000.0
"""A device this slow does not finish within a test."""


def order(station: Station, command: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body that sends `command` to the station's first telescope and waits for its end."""
    return {
        "telescopeUid": str(station.site.telescopes[0].uid),
        "commandId": str(uuid4()),
        "command": command,
        "waitS": 20,
        **more,
    }


async def send(hub: httpx.AsyncClient, station: Station, command: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The record of a command, when it has ended."""
    answer = await hub.post("/internal/commands", json=order(station, command, **more), timeout=30)
    found: dict[str, Any] = answer.json()
    return found


async def ask(hub: httpx.AsyncClient, station: Station, operation: str, **body: Any) -> httpx.Response:
    """A direct request to the station's first telescope."""
    path = f"/internal/nodes/{station.telescope_node.install_id}/direct"
    return await hub.post(path, json={"operation": operation, "params": {}, **body}, timeout=30)
