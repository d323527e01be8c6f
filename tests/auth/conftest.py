"""The issuer and the HTTP client that the tests with real sockets share, and a clock moved by hand."""

from collections.abc import AsyncIterator

import httpx
import pytest

from skygw.auth.issuer_http import open_issuer_client
from tests.fakes.issuer import FakeIssuer, fake_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with fake_issuer() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with open_issuer_client() as client:
        yield client


class Clock:
    """A clock the test moves by hand, in seconds."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()
