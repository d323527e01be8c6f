"""A pytest plugin: a gateway and simulated installations for the tests of those who build on them (docs/testing.md).

Every pytest run where skygw is installed loads this module, so nothing is imported here that a test did not ask for.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from skygw.client.control_lease import ControlLease
    from skygw.sim.station import Station
    from skygw.testing.gateway import TestGateway

__all__ = ["gateway", "gateway_settings", "installation", "lease", "skygw_database"]


@pytest.fixture(scope="session")
def skygw_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of one PostgreSQL for the whole session: for the gateway's role, and for the tables' owner."""
    from skygw.testing.cluster import ClusterThread

    with ClusterThread(tmp_path_factory.mktemp("skygw")) as cluster:
        yield cluster.gateway_url, cluster.owner_url


@pytest.fixture
def gateway_settings() -> dict[str, object]:
    """Settings that differ from a gateway's defaults, by field name; override this fixture to change them."""
    return {}


@pytest.fixture
async def gateway(
    skygw_database: tuple[str, str], gateway_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator["TestGateway"]:
    """A running gateway on free ports, with a development key of its own. Real clock; ends with the test."""
    from skygw.testing.gateway import open_gateway

    gateway_url, owner_url = skygw_database
    directory = tmp_path_factory.mktemp("gateway")
    async with open_gateway(gateway_url, owner_url, directory=directory, changed=gateway_settings) as running:
        yield running


@pytest.fixture
async def installation(gateway: "TestGateway", tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator["Station"]:
    """A simulated site with one telescope, provisioned and connected; its time runs 20 times as fast as ours."""
    from skygw.testing.gateway import open_installation

    async with open_installation(gateway, directory=tmp_path_factory.mktemp("installation")) as station:
        yield station


@pytest.fixture
async def lease(gateway: "TestGateway", installation: "Station") -> AsyncIterator["ControlLease"]:
    """Control of the installation's telescope until the test ends: what moves anything shows its `lease_uid`."""
    async with (
        gateway.caller() as caller,
        caller.lease(telescope_uid=installation.site.telescopes[0].uid) as held,
    ):
        yield held
