"""Asks a gateway for things as a service of the hub does."""

from typing import Any
from uuid import UUID, uuid4, uuid5

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


async def control(hub: httpx.AsyncClient, station: Station) -> None:
    """Takes control of the station's first telescope, for longer than a test lasts. The orders of this page show it."""
    body = {
        "telescopeUid": str(station.site.telescopes[0].uid),
        "leaseUid": str(_lease_uid(station)),
        "durationS": 3_600,
    }
    answer = await hub.post("/internal/leases", json=body)
    assert answer.status_code == 201, answer.text


def _lease_uid(station: Station) -> UUID:
    """A secret of one's own may be any UUID: a test needs not carry it about."""
    return uuid5(station.site.telescopes[0].uid, "lease")


def order(station: Station, command: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body that sends `command` to the station's first telescope and waits for its end."""
    return {
        "telescopeUid": str(station.site.telescopes[0].uid),
        "commandId": str(uuid4()),
        "command": command,
        "leaseUid": str(_lease_uid(station)),
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
