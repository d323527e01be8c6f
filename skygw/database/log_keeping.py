"""Keeps the log of events: the database makes its partitions ahead and drops the old ones when it is asked to."""

import logging
from datetime import timedelta

import trio

from skygw.database.pool import Database
from skygw.errors import RoutingUnavailable

KEEP_EVERY_S = 3600.0
AGAIN_S = 60.0
"""After the database was away, or others used the log all the while. Partitions are made a week ahead."""

KEEP = "SELECT skygw.keep_log($1)"

log = logging.getLogger(__name__)


async def keep_log(database: Database, keep: timedelta) -> None:
    """Keeps what is younger than `keep`, at least a day, now and every hour. Ends when cancelled."""
    while True:
        pause_s = KEEP_EVERY_S if await _done(database, keep) else AGAIN_S
        await trio.sleep(pause_s)


async def _done(database: Database, keep: timedelta) -> bool:
    try:
        async with database.connection() as connection:
            if await connection.fetchval(KEEP, keep):
                return True
    except RoutingUnavailable as error:
        log.warning("the log of events is not kept yet: %s", error)
    else:
        log.warning("the log of events is not kept yet: others use it all the while")
    return False
