"""The composition root: opens everything in one nursery, in a straight line, and ends it in order."""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

import trio

from skygw import __version__
from skygw.auth import audit_key, development
from skygw.auth.authenticator import Authenticator
from skygw.auth.introspection import Introspection
from skygw.auth.issuer_http import open_issuer_client
from skygw.auth.key_sources import JwksFile, JwksUrl, KeySource
from skygw.auth.networks import Network, client_address
from skygw.control.allow_list import AllowList
from skygw.control.asset_calls import AssetCalls
from skygw.control.commands import CommandService
from skygw.control.configuration_guard import ConfigurationGuard
from skygw.control.direct_rpc import DirectRpc
from skygw.control.graph_news import GraphNews
from skygw.control.guards import Guards
from skygw.control.lease_guard import LeaseGuard
from skygw.control.leases import LeaseService
from skygw.control.order import Budget
from skygw.control.running_tasks import TaskGuard
from skygw.control.safing_spool import SafingSpool
from skygw.control.site_guards import InterlockGuard, LocalControlGuard, SiteWord, StandingInterlocks
from skygw.control.task_aborts import TaskAborts
from skygw.control.task_news import TaskNews
from skygw.database.assets import PgAssets
from skygw.database.audit import AuditSigner
from skygw.database.commands import Commands
from skygw.database.embedded import EmbeddedCluster, embedded_postgres
from skygw.database.event_log import PgEventLog
from skygw.database.graph_feed import GraphFeed
from skygw.database.hardware import PgHardware
from skygw.database.installations import Installations
from skygw.database.leases import PgLeases
from skygw.database.log_keeping import keep_log
from skygw.database.migrate import pending, prepare_development
from skygw.database.node_reports import NodeReports
from skygw.database.node_sessions import NodeSessions
from skygw.database.platform import check_platform
from skygw.database.pool import Database, open_loop_and_database
from skygw.database.retained_values import PgRetainedValues, next_era
from skygw.database.running_tasks import PgRunningTasks
from skygw.database.surveyor import PgSurveyor
from skygw.database.task_board import PgTaskBoard, hears_of_tasks
from skygw.database.task_ledger import forget_reports
from skygw.database.tasks import PgTasks
from skygw.database.uploads import PgUploads
from skygw.draining import Drained, drain
from skygw.errors import RoutingUnavailable, StartupError
from skygw.fits.supervisor import open_fits_helper
from skygw.nodes.admission import NodeDoor, SessionWitness
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.loopback import LOOPBACK_CLAIM, LoopbackLink, loopback_binding, loopback_hello
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import SessionPorts
from skygw.nodes.rates import InboundRate
from skygw.nodes.revocation import watch_revocations
from skygw.nodes.session import NodeSession, SessionRules
from skygw.observability.metrics import CONTENT_TYPE, Metrics
from skygw.observing.assets import AssetService
from skygw.observing.hardware import Hardware
from skygw.observing.task_service import TaskService
from skygw.observing.upload_expiry import remove_expired_uploads
from skygw.observing.upload_store import Quota
from skygw.observing.uploads import UploadRules, Uploads
from skygw.observing.verification import Verifier
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import from_gateway, from_node
from skygw.protocol.gateway_frames import LinkLossPolicy
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.protocol.streams import RETAINED_STREAMS, StreamName
from skygw.readiness import database_check, loopback_check, not_draining, registry_check
from skygw.resources import UNWANTED_REASONS
from skygw.routers.apps import internal_app, node_app
from skygw.routers.asset_content import AssetContentRouter
from skygw.routers.assets import InternalAssetRouter, NodeAssetRouter
from skygw.routers.command_socket import CommandSocketRouter
from skygw.routers.direct import DirectRouter
from skygw.routers.docs import DocsRouter
from skygw.routers.event_streams import EventStreamRouter
from skygw.routers.gates import InternalGate, NodeGate
from skygw.routers.hardware import HardwareRouter
from skygw.routers.internal import InternalRouter
from skygw.routers.leases import LeaseRouter
from skygw.routers.node import NodeRouter
from skygw.routers.streams import StreamRouter
from skygw.routers.system import HealthRouter, SystemRouter
from skygw.routers.tasks import TaskRouter
from skygw.routers.uploads import UploadRouter
from skygw.routers.ws import SocketRouter
from skygw.serving.config import ListenerConfig, TlsFiles
from skygw.serving.listener import Listener
from skygw.settings import Listener as ListenerName
from skygw.settings import Settings
from skygw.storage.local import LocalStore
from skygw.telemetry.following import NodeStreams
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.kept_values import KeptValues, restore

log = logging.getLogger("skygw.app")

SPOOL_FOLDER = "unrecorded-stops"
"""In the data directory."""
FILES_FOLDER = "files"
"""In the data directory, too."""
SIGN_AT_LEAST_S = 0.5
"""What one statement behind the drain may take when there is no time left."""


@dataclass(frozen=True)
class Running:
    """A gateway that is ready. `cluster` is the embedded PostgreSQL, if it runs on one."""

    node_url: str
    internal_url: str
    database: Database
    cluster: EmbeddedCluster | None
    start_drain: Callable[[], None]


async def run(
    settings: Settings,
    *,
    handle_signals: bool = True,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until told to drain: by SIGTERM, Ctrl-C, `POST /internal/drain`, or `start_drain`. A second signal ends at
    once. Cancelled, it drops every connection. Raises `StartupError` with one sentence when it cannot start.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(
            version=__version__,
            frame_kinds=[*from_node.models, *from_gateway.models],
            close_codes=[int(code) for code in CloseCode],
            streams=list(StreamName),
            retained_streams=sorted(RETAINED_STREAMS),
            snapshot_refusals=UNWANTED_REASONS,
        )
        counting = ListenerMetrics(metrics)
        node_listener = Listener.bind(_listener(settings, "node"), metrics=counting)
        stack.callback(node_listener.stop_accepting)
        internal_listener = Listener.bind(_listener(settings, "internal"), metrics=counting)
        stack.callback(internal_listener.stop_accepting)
        cluster = await stack.enter_async_context(_own_cluster(settings))
        database = await stack.enter_async_context(
            open_loop_and_database(_database_url(settings, cluster), failed=metrics.unhandled)
        )
        if cluster is None:
            await _check_database(_database_url(settings, cluster), database)

        # Services.
        registry = ConnectionRegistry()
        installations = Installations(database)
        epochs = NodeSessions(database)
        hub, kept_values = await _open_hub(database, installations, heartbeat_s=settings.heartbeat_s, metrics=metrics)
        lease_ledger = PgLeases(database, committed=hub.feed.poke)
        allowed = AllowList(settings.service_telescopes, PgSurveyor(database))
        tasks = PgRunningTasks(database)
        aborts = TaskAborts(tasks=tasks, registry=registry)
        leases = LeaseService(
            ledger=lease_ledger, registry=registry, retained=hub.retained, aborts=aborts, allowed=allowed
        )
        sites = SiteWord(hub.retained, registry)
        graphs = PgHardware(database)
        graph_news = GraphNews(registry, count_loss=metrics.graph_feed_lost)
        graph_feed = GraphFeed(
            database,
            graphs,
            tell=graph_news,
            connected=graph_news.connected,
            look_every_s=settings.graph_look_s,
        )
        commands = CommandService(
            registry=registry,
            ledger=Commands(database, committed=hub.feed.poke),
            controllers=installations,
            guards=Guards(
                [
                    allowed,
                    LeaseGuard(lease_ledger),
                    LocalControlGuard(sites),
                    InterlockGuard(sites),
                    TaskGuard(tasks),
                    ConfigurationGuard(graph_news),
                ]
            ),
            finished=metrics.command_ended,
            spool=SafingSpool(settings.data_dir / SPOOL_FOLDER),
        )
        task_news = TaskNews(board=PgTaskBoard(database), registry=registry)
        task_service = TaskService(
            store=PgTasks(database, committed=hub.feed.poke),
            interlocks=StandingInterlocks(sites),
            connected=lambda: [session.binding.install_id for session in registry],
        )
        signing_key = await trio.to_thread.run_sync(
            audit_key.load_or_make, settings.audit_key or settings.data_dir / audit_key.KEY_FILE
        )
        signer = AuditSigner(database, key_id=signing_key.key_id, sign=signing_key.sign)
        rpc = DirectRpc(registry, metrics=metrics, allowed=allowed)

        # Files.
        files = LocalStore(settings.data_dir / FILES_FOLDER)
        kept_assets = PgAssets(database, committed=hub.feed.poke)
        examiner = await stack.enter_async_context(open_fits_helper())
        verifier = Verifier(assets=kept_assets, contents=files, files=files, examiner=examiner)
        uploads = Uploads(
            store=PgUploads(database),
            files=files,
            rules=_upload_rules(settings),
            now=_now,
            completed=lambda _: verifier.poke(),
        )
        assets = AssetService(store=kept_assets, parts=files, rules=uploads.rules, now=_now, arrived=verifier.poke)
        asset_calls = AssetCalls(rpc, answer_s=settings.direct_timeout_s, read_s=settings.max_direct_timeout_s)

        # Doors.
        authenticator, refreshing = await _authenticator(settings, installations, stack)
        node_gate = NodeGate(
            verifier=authenticator, directory=installations, trusted_proxies=settings.node_trusted_proxies
        )
        internal_gate = InternalGate(
            verifier=authenticator,
            networks=settings.internal_networks,
            trusted_proxies=settings.internal_trusted_proxies,
        )
        rules = _rules(settings)
        ports = SessionPorts(
            reports=NodeReports(database, committed=hub.feed.poke),
            tokens=node_gate,
            snapshots=hub.retained,
            streams=NodeStreams(hub),
            results=commands,
            graph=graph_news,
            metrics=metrics,
        )
        witnesses: list[SessionWitness] = [commands, leases, aborts, task_news, hub]
        door = NodeDoor(registry=registry, epochs=epochs, rules=rules, ports=ports, witnesses=witnesses)
        draining = trio.Event()
        node_side = node_app(
            [
                HealthRouter(),
                NodeRouter(gate=node_gate),
                TaskRouter(gate=node_gate, tasks=task_service),
                NodeAssetRouter(gate=node_gate, assets=assets),
                HardwareRouter(gate=node_gate, hardware=Hardware(graphs)),
                SocketRouter(gate=node_gate, door=door, registry=registry, metrics=metrics),
            ],
            [UploadRouter(gate=node_gate, uploads=uploads)],
            count=lambda route, status: metrics.http_request(listener="node", route=route, status=status),
            surprised=metrics.unhandled,
        )
        command_budget = Budget(default_s=settings.command_timeout_s, max_s=settings.max_command_timeout_s)
        direct_budget = Budget(default_s=settings.direct_timeout_s, max_s=settings.max_direct_timeout_s)
        internal_side = internal_app(
            [
                HealthRouter(),
                SystemRouter(
                    checks={
                        "draining": not_draining(draining),
                        "loopback": loopback_check(rpc),
                        "registry": registry_check(registry),
                        "database": database_check(database),
                    },
                    metrics=lambda: (CONTENT_TYPE, _numbers(metrics, registry, database, hub)),
                ),
                DocsRouter(
                    version=__version__,
                    node_url=settings.node_public_url,
                    internal_url=settings.internal_public_url,
                ),
                StreamRouter(gate=internal_gate, hub=hub, metrics=metrics),
                CommandSocketRouter(
                    gate=internal_gate,
                    hub=hub,
                    commands=commands,
                    leases=leases,
                    rpc=rpc,
                    registry=registry,
                    directory=installations,
                    metrics=metrics,
                    command_budget=command_budget,
                    direct_budget=direct_budget,
                ),
                LeaseRouter(gate=internal_gate, leases=leases),
                InternalAssetRouter(gate=internal_gate, assets=assets, calls=asset_calls),
                InternalRouter(
                    gate=internal_gate,
                    registry=registry,
                    directory=installations,
                    epochs=epochs,
                    rpc=rpc,
                    commands=commands,
                    snapshots=hub.retained,
                    start_drain=draining.set,
                    budget=command_budget,
                ),
            ],
            [
                DirectRouter(
                    gate=internal_gate,
                    rpc=rpc,
                    registry=registry,
                    directory=installations,
                    budget=direct_budget,
                ),
                EventStreamRouter(gate=internal_gate, hub=hub, metrics=metrics),
                AssetContentRouter(gate=internal_gate, assets=assets, files=files, calls=asset_calls),
            ],
            gate=internal_gate,
            count=lambda route, status: metrics.http_request(listener="internal", route=route, status=status),
            surprised=metrics.unhandled,
        )

        # Everything that runs.
        async with trio.open_nursery() as nursery:
            if handle_signals:
                await nursery.start(_watch_signals, draining, nursery.cancel_scope)
            for refresh in refreshing:
                await nursery.start(refresh)
            await nursery.start(commands.run)
            nursery.start_soon(leases.run)
            nursery.start_soon(aborts.run)
            nursery.start_soon(task_news.run)
            nursery.start_soon(hears_of_tasks(database, task_news).run)
            nursery.start_soon(task_service.run)
            nursery.start_soon(graph_feed.run)
            nursery.start_soon(graph_news.run)
            await nursery.start(hub.run)
            nursery.start_soon(keep_log, database, timedelta(days=settings.log_keep_days))
            nursery.start_soon(forget_reports, database)
            nursery.start_soon(verifier.run)
            nursery.start_soon(remove_expired_uploads, uploads)
            nursery.start_soon(signer.run)
            nursery.start_soon(kept_values.run)
            nursery.start_soon(watch_revocations, registry, installations)
            nursery.start_soon(_run_loopback, registry, rules, ports)
            await nursery.start(node_listener.run, node_side)
            await nursery.start(internal_listener.run, internal_side)
            task_status.started(
                Running(
                    node_url=_url(settings, "node", node_listener),
                    internal_url=_url(settings, "internal", internal_listener),
                    database=database,
                    cluster=cluster,
                    start_drain=draining.set,
                )
            )
            await draining.wait()
            everything = Drained(door, rpc, commands, registry, node_listener, internal_listener)
            end_by = trio.current_time() + settings.drain_s
            await drain(everything, within_s=settings.drain_s)
            await _sign_at_the_end(signer, deadline=max(end_by, trio.current_time() + SIGN_AT_LEAST_S))
            nursery.cancel_scope.cancel()


# Settings become what each room takes.


def _listener(settings: Settings, name: ListenerName) -> ListenerConfig:
    files = settings.tls(name)
    proxies = settings.node_trusted_proxies if name == "node" else settings.internal_trusted_proxies
    return ListenerConfig(
        name=name,
        host=settings.node_host if name == "node" else settings.internal_host,
        port=settings.node_port if name == "node" else settings.internal_port,
        tls=None if files is None else TlsFiles(files.certificate, files.key, files.client_ca),
        allow_cleartext=settings.allow_cleartext,
        behind_tls_proxy=settings.behind_tls_proxy,
        # The gate lets in no one else: a peer is a caller, or a proxy that is trusted to name one.
        allowed_networks=settings.internal_networks + settings.internal_trusted_proxies if name == "internal" else None,
        send_timeout_s=settings.send_timeout_s,
        websocket_violation_code=CloseCode.PROTOCOL_VIOLATION if name == "node" else None,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=proxies,
        resolve_client=lambda peer, forwarded_for: _client(peer, forwarded_for, proxies),
        never_refused=_may_carry_a_stop if name == "internal" else None,
    )


def _client(peer: str, forwarded_for: Sequence[str], proxies: Sequence[Network]) -> str | None:
    found = client_address(peer, forwarded_for, proxies)
    return None if found is None else str(found)


def _may_carry_a_stop(path: str) -> bool:
    """Who has too much under way may still stop a telescope (contract §0); the token is asked for as ever."""
    return path.startswith("/internal/commands") or path == COMMAND_SOCKET_PATH


def _url(settings: Settings, name: ListenerName, listener: Listener) -> str:
    public = settings.node_public_url if name == "node" else settings.internal_public_url
    if public is not None:
        return public
    host, port = listener.address
    return f"{'http' if settings.tls(name) is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"


def _rules(settings: Settings) -> SessionRules:
    return SessionRules(
        heartbeat_s=settings.heartbeat_s,
        dead_after_s=settings.dead_after_s,
        hello_timeout_s=settings.hello_timeout_s,
        issuer_grace_s=settings.issuer_grace_s,
        max_calls=min(
            settings.max_calls_per_node, settings.max_in_flight_bytes_per_node // settings.direct_credit_bytes
        ),
        call_credit=settings.direct_credit_bytes,
        frames_per_s=settings.node_frames_per_s,
        bytes_per_s=settings.node_bytes_per_s,
        link_loss_policy=LinkLossPolicy(settings.link_loss_policy),
    )


def _upload_rules(settings: Settings) -> UploadRules:
    return UploadRules(
        max_bytes=settings.max_upload_bytes,
        unsized_max_bytes=settings.max_unsized_upload_bytes,
        quota=Quota(bytes=settings.upload_quota_bytes, uploads=settings.upload_quota),
        keep_s=settings.upload_keep_days * 86_400.0,
        spare_bytes=settings.storage_spare_bytes,
    )


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def _own_cluster(settings: Settings) -> AsyncIterator[EmbeddedCluster | None]:
    """The embedded PostgreSQL with the platform's tables as assumed, or nothing where a database is given."""
    if settings.database_url is not None:
        yield None
        return
    async with embedded_postgres(settings.data_dir) as cluster:
        await prepare_development(cluster.owner_url)
        yield cluster


def _database_url(settings: Settings, cluster: EmbeddedCluster | None) -> str:
    if cluster is not None:
        return cluster.gateway_url
    if settings.database_url is None:
        raise RuntimeError("a database is given where none is embedded")
    return settings.database_url.get_secret_value()


async def _check_database(url: str, database: Database) -> None:
    """A database of somebody else's is looked at and not touched."""
    missing = await pending(url)
    if missing:
        raise StartupError(f"the database lacks {len(missing)} migrations ({missing[0]} first): run `skygw migrate`")
    try:
        async with database.connection() as connection:
            wrong = await check_platform(connection)
    except RoutingUnavailable as error:
        raise StartupError(f"the database cannot be looked at: {error}") from error
    if wrong:
        raise StartupError(f"the database is not the platform's: {wrong[0]} (`skygw doctor` lists all {len(wrong)})")


async def _open_hub(
    database: Database, installations: Installations, *, heartbeat_s: float, metrics: Metrics
) -> tuple[StreamHub, KeptValues]:
    """Telemetry as it was when the gateway before this one ended, and who writes it down from now on."""
    store = PgRetainedValues(database)
    try:
        hub = StreamHub(
            era=await next_era(database), log=PgEventLog(database), heartbeat_s=heartbeat_s, metrics=metrics
        )
        restored = await restore(store, installations, hub.retained, known=hub.instruments.know)
    except RoutingUnavailable as error:
        raise StartupError(f"what nodes had published cannot be read back: {error}") from error
    log.info("took back the latest values", extra={"values": restored, "era": hub.versions.era})
    kept_values = KeptValues(store)
    hub.watch(kept_values)
    hub.presence.resume()
    return hub, kept_values


async def _authenticator(
    settings: Settings, installations: Installations, stack: AsyncExitStack
) -> tuple[Authenticator, list[Callable[..., Awaitable[None]]]]:
    """Who checks tokens, and what must run for it."""
    keys: KeySource | None = None
    introspection: Introspection | None = None
    issuer = settings.token_issuer
    refreshing: list[Callable[..., Awaitable[None]]] = []
    if settings.jwks_file is not None:
        keys = JwksFile(settings.jwks_file)
    if settings.jwks_url or settings.introspection_url:  # else nobody is asked, and no root certificates are read
        client = await stack.enter_async_context(
            open_issuer_client(ca_file=None if settings.issuer_ca is None else str(settings.issuer_ca))
        )
        if settings.jwks_url is not None:
            keys = published = JwksUrl(settings.jwks_url, client)
            refreshing.append(published.run)
        if settings.introspection_url and settings.introspection_client_id and settings.introspection_client_secret:
            introspection = Introspection(
                settings.introspection_url,
                client,
                client_id=settings.introspection_client_id,
                client_secret=settings.introspection_client_secret.get_secret_value(),
                stale_s=settings.issuer_grace_s,
            )
    if not settings.has_keys:
        key = await trio.to_thread.run_sync(development.load_or_make, settings.data_dir)
        keys, issuer = development.key_source(key), development.ISSUER
        log.warning("no issuer is set: tokens of the development key in the data directory are accepted")
    authenticator = Authenticator(
        issuer=issuer or "",
        node_audiences=settings.node_audiences,
        service_audiences=settings.internal_audiences,
        keys=keys,
        introspection=introspection,
        uid_claim=settings.install_uid_claim,
        installations=installations if settings.uid_from_client_id else None,
    )
    return authenticator, refreshing


class ListenerMetrics:
    """The listeners' counts in the process's numbers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def opened(self, listener: str) -> None:
        self._metrics.connection_opened(listener)

    def closed(self, listener: str, why: str) -> None:  # noqa: ARG002 - the log says why
        self._metrics.connection_closed(listener)

    def refused(self, listener: str, why: str) -> None:
        self._metrics.connection_refused(listener, str(why))


# What runs beside the listeners.


async def _watch_signals(
    draining: trio.Event, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    """The first signal drains, the second ends at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if draining.is_set():
                log.warning("ending at once", extra={"signal": signal.Signals(number).name})
                everything.cancel()
                return
            log.info("told to end", extra={"signal": signal.Signals(number).name})
            draining.set()


async def _sign_at_the_end(signer: AuditSigner, *, deadline: float) -> None:
    """What this gateway did last is under a signature too, if the database is quick."""
    try:
        with trio.fail_at(deadline):
            await signer.sign_heads()
    except (trio.TooSlowError, RoutingUnavailable):
        log.warning("the end of the audit is not signed; the next gateway on this database does it")


async def _run_loopback(registry: ConnectionRegistry, rules: SessionRules, ports: SessionPorts) -> None:
    session = NodeSession(
        link=LoopbackLink(),
        hello=loopback_hello(),
        binding=loopback_binding(),
        claim=LOOPBACK_CLAIM,
        acked_seq=0,
        token_expires_at=inf,
        address="loopback",
        rules=rules,
        ports=ports,
        rate=InboundRate(frames_per_s=rules.frames_per_s, bytes_per_s=rules.bytes_per_s),
    )
    registry.take_over(session)
    try:
        await session.run()
    finally:
        registry.release(session, session.ending_or_lost())


def _numbers(metrics: Metrics, registry: ConnectionRegistry, database: Database, hub: StreamHub) -> bytes:
    for lane in Lane:
        metrics.queue_bytes(lane.label, sum(session.queued_bytes(lane) for session in registry))
    metrics.streams(
        subscriptions=hub.subscriptions(),
        stale=hub.retained.stale(),
        log_behind=hub.feed.behind,
        log_lag_s=hub.feed.lag_s(),
    )
    metrics.database_up(database.available)
    return metrics.render()
