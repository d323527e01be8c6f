"""Gives the tests the fixtures of the package's own pytest plugin, also in a checkout that is not installed."""

import pytest

import skygw.testing


def pytest_configure(config: pytest.Config) -> None:
    """Installed, the plugin came by its entry point, and the same module cannot be registered twice."""
    if not config.pluginmanager.is_registered(skygw.testing):
        config.pluginmanager.register(skygw.testing, "skygw")
