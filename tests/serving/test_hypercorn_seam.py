"""The pin of the seam: when an upstream class it was written against changes, it must be read again."""

import hashlib
import inspect
from importlib.metadata import version

import pytest
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

from skygw.serving import ListenerConfig
from skygw.serving.hypercorn_seam import hypercorn_config

READ_AND_UNDERSTOOD = {
    H11Protocol: "b32a61e0a8ca2127",
    H11WSConnection: "33372cf689429978",
    WorkerContext: "45885f0c0bd5bc9d",
    EventWrapper: "7c96abfd4a9ca2dc",
}


def test_the_pinned_series_is_installed() -> None:
    assert version("hypercorn").startswith("0.18.")


@pytest.mark.parametrize("upstream", READ_AND_UNDERSTOOD, ids=lambda upstream: upstream.__name__)
def test_the_upstream_class_is_the_one_the_seam_was_written_against(upstream: type) -> None:
    source = inspect.getsource(upstream).encode()
    assert hashlib.sha256(source).hexdigest()[:16] == READ_AND_UNDERSTOOD[upstream]


def test_every_setting_handed_to_hypercorn_is_one_it_knows() -> None:
    config = hypercorn_config(ListenerConfig(name="node", host="127.0.0.1", port=0))
    unknown = [name for name in vars(config) if not hasattr(Config, name)]
    assert unknown == []


def test_hypercorns_own_loggers_have_nowhere_to_write() -> None:
    config = hypercorn_config(ListenerConfig(name="node", host="127.0.0.1", port=0))
    assert (config.log.access_logger, config.log.error_logger) == (None, None)
