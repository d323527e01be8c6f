"""The steps that show the good case: a mount and a camera do what they are told, and their frame arrives."""

import hashlib
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.demo.stage import Stage, expect, one_device
from skygw.ids import CommandId
from skygw.sim.journal import Action, effects_of
from skygw.sim.sky import M13

COMMAND_S = 20.0
LOOK_S = 0.05
SLOWNESS = 100.0
"""A slew this much slower than usual is still under way when it is stopped."""

NEAR_DEG = 0.05
"""How far from M13 the middle of its frame may be: the photograph is 0.14° wide."""

AT_M13 = {"position_type": "equatorial", "ra_deg": M13.ra_deg, "dec_deg": M13.dec_deg}


async def command(stage: Stage, body: dict[str, Any], *, wait_s: float = COMMAND_S) -> dict[str, Any]:
    """Send a command to the first telescope and wait for its end."""
    return await stage.caller.command(
        body,
        command_id=CommandId(uuid4()),
        telescope_uid=stage.plain.site.telescopes[0].uid,
        lease=stage.lease,
        timeout_s=60.0,
        wait_s=wait_s,
    )


async def track(stage: Stage) -> str:
    """A mount unparks, slews and tracks; the caller sees how far it is, and proof at the end."""
    unparked = await command(stage, {"command_type": "mount.unpark"})
    expect(unparked["outcome"] == "succeeded", f"the mount did not unpark: {unparked['error']}")
    sent = await command(stage, {"command_type": "mount.track", "target": AT_M13}, wait_s=0)
    command_id = CommandId(UUID(sent["commandId"]))
    seen: list[float] = []
    while True:
        record = await stage.caller.command_record(command_id)
        if record["progress"] is not None and record["progress"] not in seen:
            seen.append(record["progress"])
        if record["endedAt"] is not None:
            break
        await trio.sleep(LOOK_S)
    expect(record["outcome"] == "succeeded", f"the mount does not track: {record['error']}")
    proof = one_device(record)
    expect(
        (proof["state"], proof["basis"]) == ("tracking", "read_back"),
        f"the proof says {proof['state']} ({proof['basis']})",
    )
    done = [entry.action for entry in effects_of(command_id, stage.plain.journal.entries())]
    expect(done == [Action.SLEW_STARTED, Action.TRACKING_STARTED], f"the device journal has {done}")
    expect(bool(seen), "no progress was told on the way")
    return f"told {', '.join(f'{part:.0%}' for part in seen)} on the way, reads back “tracking”"


async def expose(stage: Stage) -> str:
    """A camera exposes and stores a frame of real sky."""
    record = await command(stage, {"command_type": "camera.exposure.start", "duration_s": 10.0, "filter_id": 4})
    expect(record["outcome"] == "succeeded", f"the exposure failed: {record['error']}")
    stored = stage.plain.frames.frame(record["result"]["asset_uid"])
    expect(stored.sha256 == record["result"]["sha256"], "the command's result names another frame than was stored")
    return f"10 s through filter R became {stored.file_name}, {stored.size:,} bytes"


async def fetch_frame(stage: Stage) -> str:
    """The frame comes through the gateway byte by byte, and is what the site has: FITS with real stars."""
    stored = stage.plain.frames.frames()[-1]
    node = stage.plain.telescope_node.install_id
    async with stage.caller.direct(node, "asset.read", {"asset_uid": stored.asset_uid}) as answer:
        content = await answer.read()
    on_site = await trio.to_thread.run_sync(stage.plain.frames.read, stored.asset_uid)
    digest = hashlib.sha256(content).hexdigest()
    expect(digest == hashlib.sha256(on_site).hexdigest(), f"{len(content)} bytes came and differ from those on site")
    width, height, off_deg = await trio.to_thread.run_sync(_read_fits, content)
    expect(off_deg < NEAR_DEG, f"the middle of the frame is {off_deg:.3f}° from M13")
    return (
        f"{len(content):,} bytes, SHA-256 {digest[:12]}… as on site; FITS {width}×{height}, {off_deg * 60:.1f}′ off M13"
    )


def _read_fits(content: bytes) -> tuple[int, int, float]:
    """Width, height, and how far the middle is from M13. In a thread; the frame is our own simulation's."""
    from astropy.coordinates import SkyCoord
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(BytesIO(content), checksum=True) as hdus:
        hdus.verify("exception")
        header, (height, width) = hdus[0].header, hdus[0].data.shape
        middle = WCS(header).pixel_to_world((width - 1) / 2, (height - 1) / 2)
    m13 = SkyCoord(M13.ra_deg, M13.dec_deg, unit="deg", frame=middle.frame.name)
    return width, height, float(middle.separation(m13).deg)
