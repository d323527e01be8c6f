"""A real PostgreSQL for a whole test session, on an embedded cluster that lives in a thread of its own."""

import queue
import threading
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psycopg
import trio

from skygw.database.embedded import DATABASE, EmbeddedCluster, embedded_postgres
from skygw.database.migrate import prepare_development

START_TIMEOUT_S = 60.0


class PostgresServer:
    """`with PostgresServer(folder) as server:` gives a database with the platform's and the gateway's tables.

    The thread has its own trio run, so that the server may outlive the event loop of a test.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._token: trio.lowlevel.TrioToken | None = None
        self._enough: trio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="postgres for tests")
        self._news: queue.Queue[EmbeddedCluster | BaseException] = queue.Queue()
        self.owner_url = ""
        self.gateway_url = ""

    def __enter__(self) -> "PostgresServer":
        self._thread.start()
        news = self._news.get(timeout=START_TIMEOUT_S)
        if isinstance(news, BaseException):
            self._thread.join()
            raise news
        self.owner_url, self.gateway_url = news.owner_url, news.gateway_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        assert self._enough is not None
        self._token.run_sync_soon(self._enough.set)
        self._thread.join()

    def new_database(self, *, empty: bool = False) -> tuple[str, str]:
        """Another database on this server, prepared unless `empty`: its owner's and its gateway's URL."""
        name = f"test_{uuid4().hex}"
        template = "template0" if empty else "prepared"
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self._named(self.owner_url, name), self._named(self.gateway_url, name)

    @staticmethod
    def _named(url: str, name: str) -> str:
        return url.replace(f"@/{DATABASE}?", f"@/{name}?")

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 -- handed to the thread that waits for it
            self._news.put(error)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._enough = trio.Event()
        async with embedded_postgres(self.data_dir) as cluster:
            await prepare_development(cluster.owner_url)
            await trio.to_thread.run_sync(self._keep_a_template, cluster.owner_url)
            self._news.put(cluster)
            await self._enough.wait()

    @staticmethod
    def _keep_a_template(owner_url: str) -> None:
        with psycopg.connect(owner_url.replace(f"@/{DATABASE}?", "@/template1?"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE prepared TEMPLATE {DATABASE}".encode())
