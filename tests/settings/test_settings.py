"""The rules between settings, and what can be read from a valid set of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from skygw.settings import Settings, TlsFiles, is_secret, settings_table

KEYS: dict[str, Any] = {"jwks_url": "https://auth.example/jwks", "token_issuer": "https://auth.example"}


def refusal(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    return str(caught.value.errors()[0]["msg"])


def test_the_defaults_hold_together_and_serve_loopback_only() -> None:
    settings = Settings()
    assert (settings.node_host, settings.node_port) == ("127.0.0.1", 5002)
    assert (settings.internal_host, settings.internal_port) == ("127.0.0.1", 5003)
    assert settings.on_loopback
    assert not settings.has_keys
    assert settings.tls("node") is None


def test_settings_built_in_code_take_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_NODE_PORT", "7")
    assert Settings().node_port == 5002


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().node_port = 1  # type: ignore[misc]


def test_a_secret_never_shows_in_the_text_of_the_settings() -> None:
    settings = Settings(database_url="postgresql://skynet_gateway:hunter2@db/skynet")
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.database_url is not None
    assert "hunter2" in settings.database_url.get_secret_value()


def test_three_settings_are_secret() -> None:
    secret = {name for name in Settings.model_fields if is_secret(name)}
    assert secret == {"database_url", "database_owner_url", "introspection_client_secret"}


def test_silence_must_outlast_two_heartbeats() -> None:
    assert "twice SKYGW_HEARTBEAT_S (10)" in refusal(dead_after_s=20)
    assert Settings(dead_after_s=20.5).dead_after_s == 20.5


@pytest.mark.parametrize("name", ["heartbeat_s", "drain_s", "direct_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_time_is_a_positive_finite_number(name: str, value: float) -> None:
    assert refusal(**{name: value})


def test_a_usual_timeout_may_not_exceed_the_longest() -> None:
    assert "SKYGW_MAX_COMMAND_TIMEOUT_S (5)" in refusal(max_command_timeout_s=5)


def test_one_response_may_not_need_more_than_the_node_is_allowed() -> None:
    assert "no call could ever start" in refusal(max_in_flight_bytes_per_node=2048, direct_credit_bytes=4096)


def test_keys_come_from_one_place() -> None:
    assert "remove one" in refusal(**KEYS, jwks_file="/etc/keys.json")


def test_keys_need_the_issuer_that_signs_with_them() -> None:
    assert "SKYGW_TOKEN_ISSUER is not set" in refusal(jwks_file="/etc/keys.json")


@pytest.mark.parametrize("listener", ["node", "internal"])
def test_without_keys_no_listener_leaves_loopback(listener: str) -> None:
    message = refusal(**{f"{listener}_host": "192.0.2.1"}, allow_cleartext=True)
    assert "loopback only" in message
    assert "192.0.2.1" in message


def test_introspection_needs_its_client() -> None:
    assert "belong together" in refusal(
        introspection_url="https://auth.example/introspect", token_issuer="https://a.example"
    )


def test_keys_are_fetched_over_tls_unless_on_this_machine() -> None:
    assert "https://" in refusal(jwks_url="http://auth.example/jwks", token_issuer="x")
    assert Settings(jwks_url="http://127.0.0.1:9/jwks", token_issuer="x").has_keys


@pytest.mark.parametrize("listener", ["node", "internal"])
def test_cleartext_beyond_loopback_must_be_meant(listener: str) -> None:
    host: dict[str, Any] = {f"{listener}_host": "0.0.0.0"}
    assert "SKYGW_ALLOW_CLEARTEXT=true" in refusal(**KEYS, **host)
    pair: dict[str, Any] = {"tls_certificate": "/tls/c.pem", "tls_key": "/tls/k.pem"}
    ways: tuple[dict[str, Any], ...] = ({"allow_cleartext": True}, {"behind_tls_proxy": True}, pair)
    for meant in ways:
        assert not Settings(**KEYS, **host, **meant).on_loopback


def test_a_certificate_without_its_key_is_refused() -> None:
    assert "SKYGW_NODE_TLS_CERTIFICATE is set without SKYGW_NODE_TLS_KEY" in refusal(node_tls_certificate="/c.pem")


def test_a_client_ca_without_tls_is_refused() -> None:
    assert "serves no TLS" in refusal(internal_tls_client_ca="/ca.pem")


def test_a_listener_serves_its_own_certificate_before_the_common_one() -> None:
    settings = Settings(
        tls_certificate=Path("/c.pem"),
        tls_key=Path("/k.pem"),
        tls_client_ca=Path("/ca.pem"),
        internal_tls_certificate=Path("/ic.pem"),
        internal_tls_key=Path("/ik.pem"),
    )
    assert settings.tls("node") == TlsFiles(Path("/c.pem"), Path("/k.pem"), Path("/ca.pem"))
    assert settings.tls("internal") == TlsFiles(Path("/ic.pem"), Path("/ik.pem"), None)


def test_data_lies_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert Settings().data_dir == Path("/somewhere/skygw")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert Settings().data_dir == Path.home() / ".local/share/skygw"


def test_the_table_names_every_setting_once_with_its_default() -> None:
    table = settings_table()
    for name in Settings.model_fields:
        assert table.count(f"| `SKYGW_{name.upper()}` |") == 1
    assert "| `SKYGW_NODE_PORT` | `5002` |" in table
    assert "| `SKYGW_INTERNAL_NETWORKS` | `127.0.0.0/8,::1/128` |" in table
    assert str(Path.home()) not in table


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_by_default_as_many_calls_as_are_promised_fit_into_the_bytes_of_a_node() -> None:
    defaults = Settings()
    room = defaults.max_in_flight_bytes_per_node // defaults.direct_credit_bytes
    assert room == defaults.max_calls_per_node


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db:99999/sky",
        "postgresql://me:hunter2@db:0/sky",
        "postgresql://me:hunter2@db:x/sky",
        "postgresql://me:hunter2@[::1]:65536/sky",
        "postgresql://me:hunter2@one:5432,two:70000/sky",
        "postgresql://me:hunter2@/sky?host=db&port=70000",
        "postgresql://me:hunter2@[::1/sky",
        "postgresql://me:hunter2@d\u2100b/sky",
        "mysql://me:hunter2@db/sky",
    ],
)
def test_a_database_url_that_cannot_be_meant_is_refused_without_its_password(url: str) -> None:
    assert "hunter2" not in refusal(database_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db/sky",
        "postgres://me@db:5432/sky",
        "postgresql://me@[::1]:5432/sky",
        "postgresql://me@one:5432,two:5433/sky",
        "postgresql:///sky?host=/run/postgresql&port=5433",
        "postgresql://me@%2Frun%2Fpostgresql/sky",
    ],
)
def test_the_ways_to_write_a_database_url_are_taken(url: str) -> None:
    chosen = Settings(database_url=url).database_url
    assert chosen is not None
    assert chosen.get_secret_value() == url


def test_an_ipv4_network_in_its_ipv6_clothes_is_the_ipv4_one() -> None:
    mapped: Any = "::ffff:10.0.0.0/104"
    assert [str(network) for network in Settings(internal_networks=mapped).internal_networks] == ["10.0.0.0/8"]


TELESCOPE, OBSERVATORY = uuid4(), uuid4()


@pytest.mark.parametrize("written", [json.dumps, lambda table: table], ids=["text", "table"])
def test_what_a_service_may_act_on_is_a_list_of_uids_for_each(written: Callable[[object], Any]) -> None:
    table = {"night": [str(TELESCOPE), str(OBSERVATORY)], "nobody": []}
    assert Settings(service_telescopes=written(table)).service_telescopes == {
        "night": (TELESCOPE, OBSERVATORY),
        "nobody": (),
    }
    assert Settings().service_telescopes == {}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('{"night": ["not a uid"]}', "UUID"),
        (f'{{"night": "{TELESCOPE}"}}', "tuple"),
        ('{"": []}', "at least 1 character"),
        ('{"night": [], "night": []}', "each service once"),
        ("[]", "dictionary"),
        ("night", "JSON object"),
    ],
)
def test_what_a_service_may_act_on_has_to_be_plain(value: Any, why: str) -> None:
    assert why in refusal(service_telescopes=value)
