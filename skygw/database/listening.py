"""Hears what PostgreSQL notifies, on a connection of its own, and notices when that connection is dead."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import trio

from skygw.database.pool import Database
from skygw.errors import RoutingUnavailable

KEEP_ALIVE_S = 10.0
ANSWER_S = 5.0
"""A connection that says nothing for this long when it is asked is dead, whatever the kernel thinks of it."""

SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


class _Deaf(Exception):
    """The connection is gone: a sentence says how."""


class Listening:
    """One channel for as long as `run` runs.

    What is notified while there is no connection is not heard, by anybody, ever: `began` is called when the channel is
    heard again, before anything it says, and has to read what it told of meanwhile.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        *,
        heard: Callable[[str], None],
        began: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        """`heard` and `lost` never wait. `began` may raise `RoutingUnavailable`: it is called again."""
        self._database = database
        self._channel = channel
        self._heard = heard
        self._began = began
        self._lost = lost
        self._hears: bool | None = None
        """`None` until it is tried."""

    async def run(self) -> None:
        """Until cancelled. Says when it hears nothing any more, and when it does again."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            try:
                await self._listen()
            except (_Deaf, RoutingUnavailable) as error:
                if self._hears:
                    pause_s = SHORTEST_PAUSE_S
                if self._hears is not False:
                    log.warning("the database's channel %s is not heard: %s", self._channel, error)
                    self._lost()
                self._hears = False
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _listen(self) -> None:
        terminated = trio.Event()
        async with self._database.dedicated(f"listening to {self._channel}") as connection:
            try:
                connection.add_termination_listener(lambda _: terminated.set())
                with trio.fail_after(ANSWER_S):
                    await connection.add_listener(self._channel, self._notified)
                await self._began()
                if self._hears is False:
                    log.warning("the database's channel %s is heard again", self._channel)
                self._hears = True
                while not await _set_within(terminated, KEEP_ALIVE_S):
                    with trio.fail_after(ANSWER_S):
                        await connection.fetchval("SELECT 1")
            except trio.TooSlowError:
                raise _Deaf(f"its connection did not answer for {ANSWER_S:g} s") from None
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                raise _Deaf(str(error) or type(error).__name__) from error
        raise _Deaf("the server ended its connection")

    def _notified(self, connection: Any, pid: int, channel: str, payload: str) -> None:  # noqa: ARG002 -- asyncpg's
        self._heard(payload)


async def _set_within(event: trio.Event, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await event.wait()
    return event.is_set()
