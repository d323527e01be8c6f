"""Every setting of the gateway, frozen and validated before anything is opened; read by `cli` and `app` alone.

`cli.configuration.load_settings` layers flags over `SKYGW_*` environment variables over a TOML file over the defaults
below. What is built with `Settings(...)` in code takes nothing from the environment.
"""

import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from skygw.auth.networks import Network, parse_networks
from skygw.loopback_hosts import is_loopback

ENV_PREFIX = "SKYGW_"

MIB = 1024 * 1024

Listener = Literal["node", "internal"]


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files one listener serves TLS with; `client_ca` makes it demand client certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None


def data_home() -> Path:
    """Where XDG says a program keeps its data (XDG Base Directory Specification 0.8)."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "skygw"


def config_home() -> Path:
    """Where XDG says a program's configuration lies."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "skygw"


def _xdg(variable: str, unless_set: str) -> Path:
    # The specification wants relative paths ignored.
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else Path.home() / unless_set


def _split(value: object) -> object:
    """Lists are comma-separated in the environment and on the command line, arrays in TOML."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _parse_networks(value: object) -> object:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return parse_networks(value)
    return value


def _by_service(value: object) -> object:
    """A JSON object in the environment and on the command line, a table in TOML."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_named_once)
    except json.JSONDecodeError:
        raise ValueError('should be a JSON object such as {"scheduler": ["<uid of a telescope>"]}') from None


def _named_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("should name each service once")
    return dict(pairs)


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be an address such as https://gateway.example.org")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("should be a plain address without query, fragment or user name")
    return value.rstrip("/")


def _trusted_url(value: str) -> str:
    # Keys and answers about tokens decide who is let in: nobody between may have changed them.
    value = _base_url(value)
    parts = urlsplit(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("should be an https:// address, unless it is on this machine")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("should look like postgresql://user:password@host:5432/database")
    # Drivers find this out when they connect, and each says it in its own way. There may be several hosts.
    try:
        parts = urlsplit(value.get_secret_value())
    except ValueError:  # which quotes the password
        raise ValueError("should look like postgresql://user:password@host:5432/database") from None
    ports = [host.rpartition("]")[2].partition(":")[2] for host in parts.netloc.rpartition("@")[2].split(",")]
    ports += [port for given in parse_qs(parts.query).get("port", []) for port in given.split(",")]
    if not all(port == "" or (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535) for port in ports):
        raise ValueError(
            "should name a port from 1 to 65535 behind its host, and write @, / and : in a password as %40, %2F, %3A"
        )
    return value


def _absolute(value: Path) -> Path:
    # A service's working directory is nobody's choice; what is shown and logged should be the whole path.
    return value.expanduser().absolute()


Location = Annotated[Path, AfterValidator(_absolute)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=1024 * MIB)]
FileBytes = Annotated[int, Field(ge=MIB, le=MIB**3)]
Host = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:\[\]_-]+$")]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], NoDecode, BeforeValidator(_split), Field(min_length=1)
]
ServiceTelescopes = Annotated[
    dict[Annotated[str, Field(min_length=1)], tuple[UUID, ...]], NoDecode, BeforeValidator(_by_service)
]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_parse_networks), BeforeValidator(_split)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
TrustedUrl = Annotated[str, AfterValidator(_trusted_url)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]


def _is(description: str, default: Any = None) -> Any:
    return Field(default=default, description=description)


class Settings(BaseSettings):
    """Each field is `SKYGW_<NAME>` in the environment, `<name>` in TOML and `--<name>` as a flag. `_s` is seconds."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    node_host: Host = _is("Address the node listener binds", "127.0.0.1")
    node_port: Port = _is("Port of the node listener; 0 picks a free one", 5002)
    internal_host: Host = _is("Address the internal listener binds", "127.0.0.1")
    internal_port: Port = _is("Port of the internal listener; 0 picks a free one", 5003)
    node_public_url: BaseUrl | None = _is("Base URL nodes reach the node listener at, when a proxy stands in front")
    internal_public_url: BaseUrl | None = _is("Base URL services reach the internal listener at, behind a proxy")
    node_trusted_proxies: Networks = _is("Networks whose `X-Forwarded-For` the node listener believes", ())
    internal_trusted_proxies: Networks = _is("Networks whose `X-Forwarded-For` the internal listener believes", ())
    internal_networks: Networks = _is(
        "Networks that may call the internal listener", (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    )

    tls_certificate: Location | None = _is("PEM certificate chain of both listeners")
    tls_key: Location | None = _is("PEM private key of both listeners")
    tls_client_ca: Location | None = _is("PEM bundle client certificates must come from, on both listeners")
    node_tls_certificate: Location | None = _is("PEM certificate chain of the node listener alone")
    node_tls_key: Location | None = _is("PEM private key of the node listener alone")
    node_tls_client_ca: Location | None = _is("PEM bundle client certificates must come from, on the node listener")
    internal_tls_certificate: Location | None = _is("PEM certificate chain of the internal listener alone")
    internal_tls_key: Location | None = _is("PEM private key of the internal listener alone")
    internal_tls_client_ca: Location | None = _is(
        "PEM bundle client certificates must come from, on the internal listener"
    )
    behind_tls_proxy: bool = _is("A proxy in front ends TLS; cleartext beyond loopback is meant", False)
    allow_cleartext: bool = _is("Serve beyond loopback without any TLS: tokens can be read on the way", False)

    data_dir: Location = Field(
        default_factory=data_home, description="Directory for the embedded database, the development key and files"
    )
    database_url: PostgresUrl | None = _is("PostgreSQL the gateway works on; without it an embedded one is run")
    database_owner_url: PostgresUrl | None = _is("PostgreSQL as the owner of the tables; `skygw migrate` uses it")

    audit_key: Location | None = _is(
        "Ed25519 key (PEM) that checkpoints of the audit are signed with; without it one is made in the data directory"
    )
    log_keep_days: Annotated[int, Field(ge=1, le=90)] = _is("Days the log of events is kept", 30)

    token_issuer: str | None = _is("The `iss` every token must carry")
    node_audiences: Names = _is("Audiences a node's token may name", ("sky-node-gateway",))
    internal_audiences: Names = _is("Audiences a service's token may name", ("sky-node-gateway-internal",))
    jwks_url: TrustedUrl | None = _is("Where the issuer publishes its keys")
    jwks_file: Location | None = _is("The issuer's keys as a local file")
    issuer_ca: Location | None = _is("PEM bundle the issuer's certificate must come from, if not the well-known ones")
    introspection_url: TrustedUrl | None = _is("Where opaque tokens are asked about (RFC 7662)")
    introspection_client_id: str | None = _is("Client id for the introspection endpoint")
    introspection_client_secret: SecretStr | None = _is("Client secret for the introspection endpoint")
    install_uid_claim: str = _is("The claim that holds the installation's uid", "sub")
    uid_from_client_id: bool = _is("Look the installation up by the token's client id instead", False)
    issuer_grace_s: Annotated[float, Field(ge=0, le=86_400)] = _is(
        "While the issuer is away: how long an expired session stays, for telemetry and safing only, and how long "
        "after its last answer a service's opaque token is believed, for safing only",
        900.0,
    )

    heartbeat_s: Seconds = _is("How often each end of a node socket is heard at least", 10.0)
    dead_after_s: Seconds = _is("Silence after which a node socket is cut; more than two heartbeats", 25.0)
    hello_timeout_s: Seconds = _is("How long a node socket may wait before its `hello`", 10.0)
    drain_s: Seconds = _is("Longest time a shutdown takes", 10.0)
    send_timeout_s: Seconds = _is("How long a peer may take nothing of what it is sent before it is cut", 10.0)
    link_loss_policy: Literal["finish", "stop", "safe_shutdown"] = _is(
        "What a node does when the link stays away", "safe_shutdown"
    )

    max_connections: Count = _is("Connections one listener holds", 4_096)
    max_connections_per_address: Count = _is(
        "Connections (behind a proxy: requests under way) of one address; raise it for a fleet behind one NAT",
        1_024,
    )
    max_calls_per_node: Count = _is(
        "Direct requests in flight per node; more are `busy`. One service gets three quarters at most", 64
    )
    direct_credit_bytes: Bytes = _is("What one response may have under way to a caller who has not read it", MIB // 2)
    max_in_flight_bytes_per_node: Bytes = _is("Response bytes all callers of one node may leave unread", 32 * MIB)
    node_frames_per_s: Count = _is(
        "Frames one installation may send, answers to direct requests aside, five durable reports counting as one; ten "
        "times as many at once",
        500,
    )
    node_bytes_per_s: Bytes = _is("Bytes of these frames; ten times as many at once", MIB)
    direct_timeout_s: Seconds = _is("Time a direct request has, unless its caller says", 30.0)
    max_direct_timeout_s: Seconds = _is("Most time a caller may give a direct request", 600.0)
    command_timeout_s: Seconds = _is("Time a command has, unless its caller says", 60.0)
    max_command_timeout_s: Seconds = _is("Most time a caller may give a command", 14_400.0)
    max_upload_bytes: FileBytes = _is("The longest file an installation may send", 64 * 1024 * MIB)
    max_unsized_upload_bytes: FileBytes = _is("…and the longest whose length was not told first", 1024 * MIB)
    upload_quota_bytes: FileBytes = _is("What the unfinished uploads of one installation may come to", 256 * 1024 * MIB)
    upload_quota: Count = _is("Unfinished uploads of one installation", 10_000)
    upload_keep_days: Annotated[int, Field(ge=1, le=365)] = _is(
        "Days an unfinished upload waits for more; one that a task names waits for ever", 14
    )
    storage_spare_bytes: Annotated[int, Field(ge=0, le=MIB**3)] = _is(
        "Bytes of the disk under the data directory that uploads leave free", 1024 * MIB
    )
    graph_look_s: Seconds = _is(
        "How often the hardware graph is looked at where its tables could not be given triggers", 30.0
    )
    service_telescopes: ServiceTelescopes = Field(
        default_factory=dict,
        description="What a service may act on: a TOML table, or JSON, of uids of telescopes or observatories by "
        "service. A service that is not named may act on everything",
    )

    log_format: Literal["json", "console"] = _is("How log lines are written to stderr", "json")
    log_level: Literal["debug", "info", "warning", "error"] = _is("The least important level that is logged", "info")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only: whoever layers other sources must know where each value came from."""
        return (init_settings,)

    @property
    def has_keys(self) -> bool:
        """Whether tokens can be checked against an issuer; otherwise a development key is made."""
        return bool(self.jwks_url or self.jwks_file or self.introspection_url)

    @property
    def on_loopback(self) -> bool:
        """Whether both listeners can be reached from this machine only."""
        return is_loopback(self.node_host) and is_loopback(self.internal_host)

    def tls(self, listener: Listener) -> TlsFiles | None:
        """The files this listener serves TLS with: its own, else the common ones; None is cleartext."""
        own = {part: getattr(self, f"{listener}_tls_{part}") for part in ("certificate", "key", "client_ca")}
        if own["certificate"] is not None:
            # A pair of its own comes without the common client CA: that belongs to the common pair.
            return TlsFiles(own["certificate"], own["key"], own["client_ca"])
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, own["client_ca"] or self.tls_client_ca)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for problem in (*_timing_problems(self), *_tls_problems(self), *_token_problems(self)):
            raise ValueError(problem)
        return self


def _timing_problems(settings: Settings) -> list[str]:
    problems = []
    if settings.dead_after_s <= 2 * settings.heartbeat_s:
        problems.append(
            f"SKYGW_DEAD_AFTER_S is {settings.dead_after_s:g}, but must be more than twice SKYGW_HEARTBEAT_S "
            f"({settings.heartbeat_s:g}), or one lost beat cuts a node: raise it above {2 * settings.heartbeat_s:g}"
        )
    for kind, limit, usual in (
        ("DIRECT", settings.max_direct_timeout_s, settings.direct_timeout_s),
        ("COMMAND", settings.max_command_timeout_s, settings.command_timeout_s),
    ):
        if usual > limit:
            problems.append(
                f"SKYGW_{kind}_TIMEOUT_S is {usual:g}, but must not exceed SKYGW_MAX_{kind}_TIMEOUT_S ({limit:g}): "
                "lower the first or raise the second"
            )
    if settings.direct_credit_bytes > settings.max_in_flight_bytes_per_node:
        problems.append(
            f"SKYGW_DIRECT_CREDIT_BYTES is {settings.direct_credit_bytes}, but must not exceed "
            f"SKYGW_MAX_IN_FLIGHT_BYTES_PER_NODE ({settings.max_in_flight_bytes_per_node}), or no call could ever start"
        )
    return problems


def _tls_problems(settings: Settings) -> list[str]:
    problems = []
    for prefix in ("", "node_", "internal_"):
        certificate, key = (getattr(settings, f"{prefix}tls_{part}") for part in ("certificate", "key"))
        if (certificate is None) != (key is None):
            there, missing = ("CERTIFICATE", "KEY") if key is None else ("KEY", "CERTIFICATE")
            name = f"SKYGW_{prefix.upper()}TLS_"
            problems.append(f"{name}{there} is set without {name}{missing}: TLS needs both, so set the other too")
    listeners: tuple[tuple[Listener, str], ...] = (("node", settings.node_host), ("internal", settings.internal_host))
    for listener, host in listeners:
        name = f"SKYGW_{listener.upper()}"
        files = settings.tls(listener)
        if files is None and (settings.tls_client_ca or getattr(settings, f"{listener}_tls_client_ca")):
            problems.append(
                f"client certificates are demanded of the {listener} listener, which serves no TLS: "
                "set SKYGW_TLS_CERTIFICATE and SKYGW_TLS_KEY too"
            )
        if files is None and not is_loopback(host) and not settings.behind_tls_proxy and not settings.allow_cleartext:
            problems.append(
                f"{name}_HOST is {host}, where others could read tokens on the way: set SKYGW_TLS_CERTIFICATE and "
                "SKYGW_TLS_KEY, or SKYGW_BEHIND_TLS_PROXY=true if a proxy ends TLS, or SKYGW_ALLOW_CLEARTEXT=true"
            )
    return problems


def _token_problems(settings: Settings) -> list[str]:
    problems = []
    if settings.jwks_url and settings.jwks_file:
        problems.append("SKYGW_JWKS_URL and SKYGW_JWKS_FILE are both set, but keys come from one place: remove one")
    if not settings.has_keys and not settings.on_loopback:
        host = settings.internal_host if is_loopback(settings.node_host) else settings.node_host
        problems.append(
            f"no keys to check tokens with are set, which is allowed on loopback only and a listener binds {host}: "
            "set SKYGW_JWKS_URL, SKYGW_JWKS_FILE or SKYGW_INTROSPECTION_URL"
        )
    if settings.has_keys and not settings.token_issuer:
        problems.append("SKYGW_TOKEN_ISSUER is not set, but keys are: set it to the “iss” of the issuer's tokens")
    asks = (settings.introspection_url, settings.introspection_client_id, settings.introspection_client_secret)
    if any(asks) and not all(asks):
        problems.append(
            "SKYGW_INTROSPECTION_URL, SKYGW_INTROSPECTION_CLIENT_ID and SKYGW_INTROSPECTION_CLIENT_SECRET belong "
            "together and one is missing: set all three or none"
        )
    return problems


def is_secret(name: str) -> bool:
    """Whether the value of this setting is never printed, and cannot be a flag (other users see those)."""
    return "SecretStr" in repr(Settings.model_fields[name].annotation)


def settings_table() -> str:
    """Every setting with its default and meaning, as the Markdown table that stands in the operations guide."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        written = _written(field.get_default(call_default_factory=True))
        default = "XDG data home`/skygw`" if name == "data_dir" else written
        secret = " (secret)" if is_secret(name) else ""
        rows.append(f"| `{ENV_PREFIX}{name.upper()}` | {default} | {field.description}{secret} |")
    return "\n".join(rows) + "\n"


def _written(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case dict() if not value:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case tuple():
            return f"`{','.join(str(item) for item in value)}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"
