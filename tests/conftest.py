"""What every test has: the package's own pytest plugin, also where it is not installed, and logging as it was."""

import logging
from collections.abc import Iterator

import pytest
import structlog

import skygw.testing


def pytest_configure(config: pytest.Config) -> None:
    """Installed, the plugin came by its entry point, and the same module cannot be registered twice."""
    if not config.pluginmanager.is_registered(skygw.testing):
        config.pluginmanager.register(skygw.testing, "skygw")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that sets logging up does so for the process; the next test gets it back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
