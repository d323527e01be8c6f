"""Settings become what each room takes."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from skygw.auth import development
from skygw.auth.authenticator import Authenticator
from skygw.auth.introspection import Introspection
from skygw.auth.issuer_http import open_issuer_client
from skygw.auth.key_sources import JwksFile, JwksUrl, KeySource
from skygw.auth.networks import Network, client_address
from skygw.database.embedded import EmbeddedCluster, embedded_postgres
from skygw.database.installations import Installations
from skygw.database.migrate import prepare_development
from skygw.nodes.session import SessionRules
from skygw.observing.upload_store import Quota
from skygw.observing.uploads import UploadRules
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import LinkLossPolicy
from skygw.protocol.schemas import COMMAND_SOCKET_PATH
from skygw.serving.config import ListenerConfig, TlsFiles
from skygw.settings import Listener as ListenerName
from skygw.settings import Settings

log = logging.getLogger("skygw.app")


def listener_config(settings: Settings, name: ListenerName) -> ListenerConfig:
    """Of one of the two listeners."""
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


def session_rules(settings: Settings) -> SessionRules:
    """Of the node sockets."""
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


def upload_rules(settings: Settings) -> UploadRules:
    return UploadRules(
        max_bytes=settings.max_upload_bytes,
        unsized_max_bytes=settings.max_unsized_upload_bytes,
        quota=Quota(bytes=settings.upload_quota_bytes, uploads=settings.upload_quota),
        keep_s=settings.upload_keep_days * 86_400.0,
        spare_bytes=settings.storage_spare_bytes,
    )


@asynccontextmanager
async def own_cluster(settings: Settings) -> AsyncIterator[EmbeddedCluster | None]:
    """The embedded PostgreSQL with the platform's tables as assumed, or nothing where a database is given."""
    if settings.database_url is not None:
        yield None
        return
    async with embedded_postgres(settings.data_dir) as cluster:
        await prepare_development(cluster.owner_url)
        yield cluster


def database_url(settings: Settings, cluster: EmbeddedCluster | None) -> str:
    """Of the database that is given, or of the embedded one."""
    if cluster is not None:
        return cluster.gateway_url
    if settings.database_url is None:
        raise RuntimeError("a database is given where none is embedded")
    return settings.database_url.get_secret_value()


async def open_authenticator(
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
