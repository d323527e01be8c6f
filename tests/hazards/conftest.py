"""Each test here is one hazard, run against two servers: ours must stand it, and the stock stack is known not to.

A hazard that the stock stack stands (because upstream mended it) fails: then a part of ours may be superfluous.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.hazards.limits import Limits
from tests.hazards.servers import Kind, Server, server_process

SHOWN = pytest.RaisesGroup(pytest.RaisesExc((AssertionError, trio.TooSlowError)), flatten_subgroups=True)
"""How a hazard shows itself, in the group pytest-trio puts around it. Anything else is a fault of the test's own."""

BOTH = [
    pytest.param(Kind.OURS, id="ours"),
    pytest.param(
        Kind.STOCK, id="stock", marks=pytest.mark.xfail(raises=SHOWN, strict=True, reason="the hazard, as it comes")
    ),
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limits(**limits): what both servers are told, see tests/hazards/limits.py")


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One of the two, with the limits the test is marked with."""
    marker = request.node.get_closest_marker("limits")
    limits = Limits(**(marker.kwargs if marker else {}))
    kind: Kind = request.param
    with server_process(kind, limits, tmp_path / "server.log") as running:
        yield running
        found = [] if running.fails_on_purpose else running.complaints()
        if kind is Kind.OURS and found:
            raise RuntimeError(f"our server found fault with itself: {found}")
