"""A setting that does not exist is said so; a limit that was misspelt is no limit."""

from collections.abc import Callable

import pytest
from hypercorn.config import Config

from skygw.serving import ListenerConfig

MISSPELT = {"websocket_max_mesage_size": 1024}


def ours() -> None:
    ListenerConfig(name="node", host="127.0.0.1", port=0, **MISSPELT)  # type: ignore[arg-type] # what mypy would have said, too


def stock() -> None:
    Config.from_mapping(MISSPELT)


@pytest.mark.parametrize(
    "configure",
    [
        pytest.param(ours, id="ours"),
        pytest.param(stock, id="stock", marks=pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)),
    ],
)
def test_an_unknown_setting_is_an_error(configure: Callable[[], None]) -> None:
    with pytest.raises(TypeError, match="websocket_max_mesage_size"):
        configure()
