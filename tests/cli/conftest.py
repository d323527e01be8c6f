"""Tests of the command line see only the variables they set, and no settings file of whoever runs them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skygw.auth.development import load_or_make
from tests.cli.fake_gateway import FakeGateway, fake_gateway


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("SKYGW_") or name in {"NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def development_key(tmp_path: Path) -> None:
    """As a gateway leaves it in the usual place."""
    load_or_make(tmp_path / "data" / "skygw")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway of canned answers, found through the environment."""
    with fake_gateway() as fake:
        monkeypatch.setenv("SKYGW_URL", fake.url)
        monkeypatch.setenv("SKYGW_TOKEN", "a-token")
        yield fake
