"""What `skygw doctor` has to ask others: a running gateway, the database, the issuer of tokens, and their clocks."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from uuid import UUID

import httpx

from skygw.cli.checks import Check, Verdict, check_port
from skygw.errors import GatewayError, StartupError
from skygw.settings import Listener, Settings

ISSUER_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 2.0
HEALTHY = {"status": "ok"}
"""What `/healthz` answers."""
CLOCK_WARNING_S = 2.0
CLOCK_WRONG_S = 30.0

SERVER_VERSION = "SELECT current_setting('server_version_num')::int / 10000"
SERVER_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


class Clocks:
    """Gathers how far other clocks are from ours, in seconds; positive is ahead of us."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._offsets: dict[str, float] = {}

    def heard(self, source: str, unix_seconds: float) -> None:
        self._offsets[source] = unix_seconds - self._now()

    def check(self) -> Check:
        """The verdict over all that was heard. A whole second is an HTTP date's resolution, so it says nothing."""
        if not self._offsets:
            return Check("clock", Verdict.OK, "there was no other clock to compare with")
        source, offset = max(self._offsets.items(), key=lambda item: abs(item[1]))
        found = f"{abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} {source}"
        if abs(offset) > CLOCK_WRONG_S:
            return Check("clock", Verdict.WRONG, found, "Set the clock (NTP): tokens are judged by it.")
        if abs(offset) > CLOCK_WARNING_S:
            return Check("clock", Verdict.WARNING, found, "See that NTP runs on both machines.")
        return Check("clock", Verdict.OK, f"agrees with {', '.join(self._offsets)}")


async def check_listener(listener: Listener, settings: Settings) -> Check:
    """Whether the listener could bind; a gateway that already answers at its port is well, too."""
    host, port = {
        "node": (settings.node_host, settings.node_port),
        "internal": (settings.internal_host, settings.internal_port),
    }[listener]
    check = check_port(listener, host, port)
    if check.verdict is Verdict.OK or settings.tls(listener) is not None:
        return check
    try:
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False) as client:
            answer = (await client.get(f"http://{host}:{port}/healthz")).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return check
    return Check(check.name, Verdict.OK, f"a gateway answers at {host}:{port}") if answer == HEALTHY else check


async def check_database(settings: Settings, clocks: Clocks) -> list[Check]:
    """Reachable, new enough, the platform's tables readable, no migration waiting, listed uids there."""
    from skygw.database.hardware import list_unwatched
    from skygw.database.migrate import LOWEST_SERVER_VERSION, pending
    from skygw.database.platform import check_platform
    from skygw.database.pool import open_loop_and_database
    from skygw.database.surveyor import unknown_among

    if settings.database_url is None:
        where = settings.data_dir
        return [Check("database", Verdict.OK, f"none is set: PostgreSQL will be run under {where}, for development")]
    url = settings.database_url.get_secret_value()
    try:
        async with open_loop_and_database(url) as database, database.connection() as connection:
            version = await connection.fetchval(SERVER_VERSION)
            clocks.heard("the database", await connection.fetchval(SERVER_CLOCK))
            missing = await check_platform(connection)
            listed = sorted({uid for uids in settings.service_telescopes.values() for uid in uids})
            unknown = [] if missing else await unknown_among(connection, listed)
        waiting = await pending(url)
        unwatched: list[str] = []
        if not waiting:
            async with open_loop_and_database(url) as database, database.connection() as connection:
                unwatched = await list_unwatched(connection)
    except (StartupError, GatewayError) as error:
        return [Check("database", Verdict.WRONG, str(error), "Start it, or correct SKYGW_DATABASE_URL.")]
    new_enough = version >= LOWEST_SERVER_VERSION
    return [
        Check(
            "database",
            Verdict.OK if new_enough else Verdict.WRONG,
            f"PostgreSQL {version} answers",
            "" if new_enough else f"Move to PostgreSQL {LOWEST_SERVER_VERSION} or later.",
        ),
        Check("platform tables", Verdict.WRONG, "; ".join(missing), "Check the database's name and the role's grants.")
        if missing
        else Check("platform tables", Verdict.OK, "everything the gateway reads is there"),
        Check("migrations", Verdict.WRONG, f"waiting: {', '.join(waiting)}", "Run “skygw migrate”.")
        if waiting
        else Check("migrations", Verdict.OK, "none is waiting"),
        *([] if waiting or missing else [_graph(unwatched, settings.graph_look_s)]),
        *([] if missing or not settings.service_telescopes else [_service_telescopes(unknown)]),
    ]


def _graph(unwatched: list[str], look_every_s: float) -> Check:
    name = "hardware graph"
    if not unwatched:
        return Check(name, Verdict.OK, "triggers tell of every change as it is committed")
    found = f"no triggers on {', '.join(unwatched)}: changes are looked for every {look_every_s:g} s"
    return Check(name, Verdict.WARNING, found, "Give the owner's role TRIGGER on them, and run “skygw migrate” again.")


def _service_telescopes(unknown: list[UUID]) -> Check:
    name = "service telescopes"
    if not unknown:
        return Check(name, Verdict.OK, "the hub's records have everything that is listed")
    found = f"no telescope or observatory has the uid {', '.join(map(str, unknown))}"
    return Check(name, Verdict.WARNING, found, "Correct SKYGW_SERVICE_TELESCOPES.")


async def check_keys(settings: Settings, clocks: Clocks) -> list[Check]:
    """Whether tokens could be judged now."""
    from skygw.auth import development
    from skygw.auth.issuer_http import open_issuer_client
    from skygw.auth.key_sources import JwksFile
    from skygw.auth.keys import KeySetError, parse_jwks

    checks = []
    try:
        if settings.jwks_file is not None:
            JwksFile(settings.jwks_file)
            checks.append(Check("token keys", Verdict.OK, f"{settings.jwks_file} holds usable keys"))
        if not settings.has_keys:
            path = settings.data_dir / development.KEY_FILE
            if path.exists():
                development.load(settings.data_dir)
            found = f"the development key {path}" if path.exists() else f"a development key will be made at {path}"
            checks.append(Check("token keys", Verdict.OK, found))
    except StartupError as error:
        checks.append(Check("token keys", Verdict.WRONG, str(error), "Correct the file and its rights."))
    try:
        client = open_issuer_client(ca_file=None if settings.issuer_ca is None else str(settings.issuer_ca))
    except StartupError as error:
        return [*checks, Check("issuer CA", Verdict.WRONG, str(error), "Correct SKYGW_ISSUER_CA.")]
    async with client:
        if settings.jwks_url is not None:
            checks.append(await _ask("token keys", settings.jwks_url, client, clocks, read=parse_jwks, bad=KeySetError))
        if settings.introspection_url is not None:
            # Any answer will do: asking about a token would need one.
            checks.append(await _ask("introspection", settings.introspection_url, client, clocks))
    return checks


async def _ask(
    name: str,
    url: str,
    client: httpx.AsyncClient,
    clocks: Clocks,
    *,
    read: Callable[[bytes], object] | None = None,
    bad: type[Exception] = ValueError,
) -> Check:
    try:
        response = await client.get(url, timeout=ISSUER_TIMEOUT_S)
        if read is not None:
            response.raise_for_status()
            read(response.content)
    except httpx.HTTPStatusError as error:
        return Check(name, Verdict.WRONG, f"{url} answers {error.response.status_code}", "Correct the address.")
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
        return Check(name, Verdict.WRONG, f"{url} does not answer ({said})", "Check the address, DNS and the firewall.")
    except bad as error:
        return Check(name, Verdict.WRONG, f"{url} serves no usable keys: {error}", "Correct the address.")
    if "date" in response.headers:
        clocks.heard("the issuer", parsedate_to_datetime(response.headers["date"]).timestamp())
    return Check(name, Verdict.OK, f"{url} answers")
