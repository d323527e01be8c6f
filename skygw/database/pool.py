"""A few connections to PostgreSQL, shared: quick to say that the database is away, and back by itself.

triopg makes the connections; the pool is ours. triopg gives a connection back to asyncpg's pool under a
shield and without a deadline, so that a server that hangs would hold the task for ever. Here a connection
left by cancellation, or by an error that is not the server's own answer, is cut (a synchronous act), and made
anew when needed.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Protocol

import asyncpg
import trio
import trio_asyncio
import triopg

from skygw.database.addresses import name_database
from skygw.errors import RoutingUnavailable, StartupError, StoreFailed

POOL_SIZE = 10
WAIT_S = 2.0
"""How long a connection may take to be made, and how long anybody waits while the database is away."""
BUSY_WAIT_S = 10.0
"""How long a caller waits for its turn while the database answers: a whole fleet may come at once."""
STATEMENT_TIMEOUT_S = 5.0
"""The server ends a statement after this; a second later we no longer believe in the server."""
IDLE_IN_TRANSACTION_S = 5.0
"""The server ends a transaction whose client does nothing for so long: what it has locked, others wait for."""
RETRY_AFTER_S = 2.0
SAY_AGAIN_S = 60.0
"""A statement that is refused over and over is one line in this time."""

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What a borrower may do with a connection, inside its `async with` and not a moment longer."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None: ...
    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]: ...
    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...


class Database:
    """The gateway's way to PostgreSQL. Opened by `open_database`; used inside a trio-asyncio loop."""

    def __init__(
        self,
        url: str,
        *,
        size: int = POOL_SIZE,
        wait_s: float = WAIT_S,
        busy_wait_s: float = BUSY_WAIT_S,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """`failed` is told of each statement that the database refuses, and must not wait."""
        self.name = name_database(url)
        self._url = url
        self._wait_s = wait_s
        self._busy_wait_s = busy_wait_s
        self._slots = trio.Semaphore(size)
        self._idle: list[Any] = []
        self._closed = False
        self._available = True
        self._was_there = False
        self._failed = failed
        self._said_at: dict[str, float] = {}

    @property
    def available(self) -> bool:
        """Whether the last thing asked of the database got an answer."""
        return self._available

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for this block alone; each statement commits by itself.

        Raises `RoutingUnavailable`, from the block too, when the database is away, hangs or is overloaded:
        within `WAIT_S` for a connection (`BUSY_WAIT_S` for a turn at one), within `STATEMENT_TIMEOUT_S` + 1
        for a statement; `StoreFailed` when it refuses a statement for another reason. Cancelling cuts the
        connection; whether the statement was done is then not known.
        """
        connection = await self._take()
        sound = False
        try:
            yield connection
            sound = True
        except asyncpg.TransactionRollbackError as error:
            # A deadlock: it was somebody else's turn, and is ours the next time.
            raise RoutingUnavailable(f"the database gave up: {error}", retry_after_s=RETRY_AFTER_S) from error
        except asyncpg.PostgresError as error:
            if isinstance(error, _AWAY):
                raise self._away(error) from error
            # The server answered: nothing is wrong with the connection.
            sound = True
            raise self._refused(error) from error
        except asyncpg.InterfaceError as error:
            # On a living connection this is a mistake of the block's.
            if not connection.is_closed():
                raise self._refused(error) from error
            raise self._away(error) from error
        except (OSError, asyncpg.InternalClientError) as error:
            # asyncpg confuses itself when a server says goodbye between two messages of one statement.
            raise self._away(error) from error
        finally:
            self._give_back(connection, sound=sound)

    @asynccontextmanager
    async def transaction(self, *, in_one_snapshot: bool = False) -> AsyncIterator[Connection]:
        """Like `connection`, all of the block in one transaction: read committed, or in one snapshot repeatable read.

        Undone if the block raises. A database lost during the commit raises `RoutingUnavailable`, too:
        whoever does it again has to be idempotent.
        """
        async with self.connection() as connection:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if in_one_snapshot else "BEGIN")
            try:
                yield connection
            except asyncpg.PostgresError:
                # Only an error of the server leaves a connection that is kept; see `_give_back` for the rest.
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def ping(self) -> None:
        """One round trip. Raises `RoutingUnavailable`."""
        async with self.connection() as connection:
            await connection.fetchval("SELECT 1")

    def close(self) -> None:
        """Cut the connections not in use; those in use are cut when given back. Nothing is waited for."""
        self._closed = True
        while self._idle:
            self._idle.pop().terminate()

    async def _take(self) -> Any:
        began = trio.current_time()
        with trio.move_on_after(self._busy_wait_s if self._available else self._wait_s) as turn:
            await self._slots.acquire()
        if turn.cancelled_caught:
            raise RoutingUnavailable("the database has too much to do", retry_after_s=RETRY_AFTER_S)
        try:
            return await self._idle_or_new(began)
        except BaseException:
            self._slots.release()
            raise

    async def _idle_or_new(self, began: float) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        # Those who stood in line while the database went away need not try one after the other.
        if self._available or trio.current_time() - began < self._wait_s:
            with trio.move_on_after(self._wait_s):
                return await self._connect()
        raise self._away(TimeoutError(f"no connection within {self._wait_s:g} s"))

    @asynccontextmanager
    async def dedicated(self, purpose: str) -> AsyncIterator[Any]:
        """A connection beside those that are shared, triopg's own, for whoever has to keep one: cut when the block is
        left. Administrators see what it is for. Raises `RoutingUnavailable` if there is none; what happens to it in the
        block is the block's.
        """
        connection = await self._connect(f"skygw {purpose}")
        try:
            yield connection
        finally:
            connection.terminate()

    async def _connect(self, name: str = "skygw") -> Any:
        if self._closed:
            raise RuntimeError("the database was closed")
        connection = triopg.connect(
            self._url,
            timeout=self._wait_s,
            command_timeout=STATEMENT_TIMEOUT_S + 1,
            server_settings={
                "application_name": name,
                "timezone": "UTC",  # what the server writes as text says so
                "statement_timeout": f"{STATEMENT_TIMEOUT_S * 1000:.0f}",
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S * 1000:.0f}",
            },
        )
        try:
            await connection.__aenter__()
        except _CANNOT_CONNECT as error:
            raise self._away(error) from error
        if not self._available:
            log.warning("the database %s answers again", self.name)
        self._available = self._was_there = True
        return connection

    def _give_back(self, connection: Any, *, sound: bool) -> None:
        if sound and not self._closed and not connection.is_closed() and not connection.is_in_transaction():
            self._available = True
            self._idle.append(connection)
        else:
            connection.terminate()
        self._slots.release()

    def _away(self, error: Exception) -> RoutingUnavailable:
        said = _in_words(error)
        if self._available and self._was_there:  # else whoever opens it says so
            log.warning("the database %s does not answer: %s", self.name, said)
        self._available = False
        return RoutingUnavailable(f"the database does not answer: {said}", retry_after_s=RETRY_AFTER_S)

    def _refused(self, error: asyncpg.PostgresError | asyncpg.InterfaceError) -> StoreFailed:
        if self._failed is not None:
            self._failed()
        state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
        kind = type(error).__name__
        # Messages of class 42 (a name or a right is wrong) hold names only; others may quote what was to be stored.
        said = str(error) if state.startswith("42") else kind
        now = trio.current_time()
        if now - self._said_at.get(said, -inf) >= SAY_AGAIN_S:
            self._said_at[said] = now
            log.error("the database %s refuses a statement: %s", self.name, said, extra={"sqlstate": state or None})
        return StoreFailed(
            f"the database refused what the gateway asked of it ({state or kind})",
            about_the_data=isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError),
        )


_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.ReadOnlySQLTransactionError,  # a standby, for now
)
_CANNOT_CONNECT = (
    OSError,  # TLS and time limits are among them
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ValueError,  # a URL that is not understood
    OverflowError,  # a port that is none
)


@asynccontextmanager
async def open_database(
    url: str,
    *,
    size: int = POOL_SIZE,
    wait_s: float = WAIT_S,
    busy_wait_s: float = BUSY_WAIT_S,
    failed: Callable[[], None] | None = None,
) -> AsyncIterator[Database]:
    """The database, answering now. Needs a trio-asyncio loop around it; needs no nursery.

    Raises `StartupError` if it does not answer or the URL is not understood; the sentence holds no password.
    """
    database = Database(url, size=size, wait_s=wait_s, busy_wait_s=busy_wait_s, failed=failed)
    try:
        try:
            await database.ping()
        except RoutingUnavailable as error:
            said = error.message.partition(": ")[2] or error.message
            raise StartupError(f"the database {database.name} does not answer: {said}") from error
        yield database
    finally:
        database.close()


@asynccontextmanager
async def open_loop_and_database(
    url: str,
    *,
    size: int = POOL_SIZE,
    wait_s: float = WAIT_S,
    busy_wait_s: float = BUSY_WAIT_S,
    failed: Callable[[], None] | None = None,
) -> AsyncIterator[Database]:
    """`open_database` in a trio-asyncio loop of its own: what a process with one database opens, once.

    An exception from the body comes out as it is, not in the loop's groups.
    """
    body_error: Exception | None = None
    async with trio_asyncio.open_loop():
        try:
            async with open_database(url, size=size, wait_s=wait_s, busy_wait_s=busy_wait_s, failed=failed) as database:
                yield database
        except Exception as error:  # noqa: BLE001 -- raised below, where no nursery wraps it
            body_error = error
    if body_error is not None:
        raise body_error


def _in_words(error: Exception) -> str:
    if isinstance(error, ValueError | OverflowError):
        # asyncpg quotes the URL here, password and all.
        return "its URL is not understood"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "nothing listens at its address"
    return str(error).strip() or type(error).__name__
