"""Removes uploads whose time is over, a few at a time; what a task or an asset still needs is never among them."""

import logging

import trio

from skygw.errors import RoutingUnavailable
from skygw.observing.uploads import Uploads

LOOK_EVERY_S = 600.0
AT_ONCE = 50
"""Between two of these others have their turn at the database and the disk."""

log = logging.getLogger("skygw.observing")


async def remove_expired_uploads(uploads: Uploads) -> None:
    """Now and every `LOOK_EVERY_S`, until cancelled. What it had begun is ended by the next one."""
    while True:
        try:
            while await uploads.remove_expired(limit=AT_ONCE) == AT_ONCE:
                await trio.lowlevel.checkpoint()
        except RoutingUnavailable as error:
            log.warning("uploads that have expired are not removed yet: %s", error)
        await trio.sleep(LOOK_EVERY_S)
