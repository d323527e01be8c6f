"""Flags, environment and file become settings; whatever is wrong becomes one sentence that says where to correct it."""

from ipaddress import ip_network
from pathlib import Path
from uuid import uuid4

import pytest

from skygw.cli.configuration import load_settings
from skygw.errors import StartupError


def refusal(**flags: object) -> str:
    with pytest.raises(StartupError) as caught:
        load_settings(flags)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "s.toml", "node_port = 1\ninternal_port = 1\ndrain_s = 1\n")
    monkeypatch.setenv("SKYGW_NODE_PORT", "2")
    monkeypatch.setenv("SKYGW_INTERNAL_PORT", "2")
    settings = load_settings({"node_port": "3", "internal_port": None}, config=file)
    assert (settings.node_port, settings.internal_port, settings.drain_s) == (3, 2, 1.0)
    assert settings.heartbeat_s == 10.0


def test_the_file_is_found_where_xdg_says(tmp_path: Path) -> None:
    write(tmp_path / "config/skygw/skygw.toml", "node_port = 4\n")
    assert load_settings().node_port == 4


def test_the_file_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKYGW_CONFIG", str(write(tmp_path / "other.toml", "node_port = 5\n")))
    assert load_settings().node_port == 5


def test_lists_are_comma_separated_in_the_environment_and_arrays_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write(tmp_path / "s.toml", 'internal_networks = ["10.0.0.0/8"]\n')
    monkeypatch.setenv("SKYGW_NODE_AUDIENCES", "one, two")
    settings = load_settings(config=file)
    assert settings.node_audiences == ("one", "two")
    assert settings.internal_networks == (ip_network("10.0.0.0/8"),)


def test_variables_of_the_client_commands_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_URL", "http://127.0.0.1:5003")
    monkeypatch.setenv("SKYGW_TOKEN", "x")
    monkeypatch.setenv("SKYGW_LEASE_UID", "7e0c7f6e-2f0f-4f25-8e0c-9a4f3a0d6b11")
    assert load_settings().node_port == 5002


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_NODE_PROT", "1")
    assert refusal() == (
        "SKYGW_NODE_PROT in the environment is no setting of the gateway: did you mean SKYGW_NODE_PORT?"
    )


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = write(tmp_path / "s.toml", "heartbeat = 1\n")
    with pytest.raises(StartupError, match=r"did you mean “heartbeat_s”\?"):
        load_settings(config=file)


def test_an_unknown_flag_is_refused_with_the_nearest_name() -> None:
    assert "did you mean --log-level?" in refusal(log_levle="info")


def test_an_unknown_name_like_no_other_is_to_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_XQ", "1")
    assert refusal().endswith("is no setting of the gateway: remove it")


def test_a_bad_value_is_named_with_its_limit_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_NODE_PORT", "70000")
    assert refusal() == (
        "SKYGW_NODE_PORT is “70000”, but should be less than or equal to 65535: correct it in the environment"
    )
    assert refusal(node_port="x").startswith("--node-port is “x”, but should be a valid integer")


def test_a_bad_value_of_the_file_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "s.toml", 'log_format = "xml"\n')
    with pytest.raises(StartupError) as caught:
        load_settings(config=file)
    assert str(caught.value) == f"“log_format” is “xml”, but should be 'json' or 'console': correct it in {file}"


def test_a_bad_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_DATABASE_URL", "mysql://u:hunter2@h/d")
    assert "SKYGW_DATABASE_URL is (a secret)" in refusal()
    assert "hunter2" not in refusal()


def test_a_very_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_LOG_FORMAT", "x" * 10_000)
    assert len(refusal()) < 300


def test_settings_that_contradict_each_other_are_refused_in_one_sentence() -> None:
    assert refusal(dead_after_s="15").startswith("SKYGW_DEAD_AFTER_S is 15, but must be more than twice")


def test_an_address_that_is_meant_as_a_network_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_INTERNAL_NETWORKS", "10.1.2.3/8")
    assert "is an address inside 10.0.0.0/8" in refusal()


def test_a_named_file_that_is_missing_unreadable_or_not_toml_is_refused(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "none.toml", "does not exist"),
        (tmp_path, "cannot be read"),
        (write(tmp_path / "bad.toml", "x = = 1"), "is not TOML"),
    ):
        with pytest.raises(StartupError, match=why):
            load_settings(config=path)


def test_what_a_service_may_act_on_is_a_table_in_the_file_and_json_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_file, of_variable, of_flag = (uuid4() for _ in range(3))
    file = write(tmp_path / "s.toml", f'[service_telescopes]\nnight = ["{of_file}"]\n')
    assert load_settings(config=file).service_telescopes == {"night": (of_file,)}
    monkeypatch.setenv("SKYGW_SERVICE_TELESCOPES", f'{{"night": ["{of_variable}"]}}')
    assert load_settings(config=file).service_telescopes == {"night": (of_variable,)}
    flag = f'{{"day": ["{of_flag}"]}}'
    assert load_settings({"service_telescopes": flag}, config=file).service_telescopes == {"day": (of_flag,)}
    assert "each service once" in refusal(service_telescopes='{"day": [], "day": []}')
