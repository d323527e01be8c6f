"""The gateway of the fixtures is a whole one: its tokens open what they should, and its settings can be changed."""

import httpx
import pytest

from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway

BEAT_S = 7.0


@pytest.fixture
def gateway_settings() -> dict[str, object]:
    return {"heartbeat_s": BEAT_S}


async def test_it_is_ready_and_has_the_settings_asked_for(gateway: TestGateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.internal_url, trust_env=False) as anybody:
        ready = await anybody.get("/readyz")
    assert ready.status_code == 200
    assert gateway.settings.heartbeat_s == BEAT_S


async def test_every_installation_of_the_site_is_connected(gateway: TestGateway, installation: Station) -> None:
    async with gateway.client() as hub:
        seen = [(await hub.get(f"/internal/nodes/{node.install_id}")).json() for node in installation.nodes]
    assert [node["connected"] for node in seen] == [True, True]
    assert [node["nodeType"] for node in seen] == ["observatory", "telescope"]


async def test_a_scope_that_was_taken_away_is_missed(gateway: TestGateway) -> None:
    async with gateway.client(scopes=["nodes:read"]) as reader:
        refused = await reader.post("/internal/drain")
    assert refused.status_code == 403
    assert "nodes:admin" in refused.json()["detail"]
