"""What services ask of nodes through the gateway, what they were told, and whether it is true."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from skygw.ids import InstallId
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.http_connection import BrokenOff, HttpAnswer, http_connection
from tests.fakes.scripted_node import Journal, expected_body

CALL_TIMEOUT_S = 30.0
"""The caller's own deadline: the gateway must answer by then, whatever its nodes do."""
ANSWER_WITHIN_S = CALL_TIMEOUT_S + 15.0


@dataclass(frozen=True)
class Ask:
    """One direct request. `nonce` is unique to it, and so are the bytes it is answered with."""

    install_id: InstallId
    nonce: str
    size: int
    padding: int = 0
    """Characters of ballast in the request itself."""


@dataclass(frozen=True)
class Told:
    """What one caller got. `outcome` is what the error said, or, where the answer broke off, what the gateway says when
    it is asked; `asked_outcome` is what it says when it is asked in any case.
    """

    ask: Ask
    status: int
    body: bytes | None
    """Complete, or `None`."""
    outcome: str
    asked_outcome: str


class Service:
    """A caller of the internal API, with a connection of its own for each request."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._url = gateway.internal_url
        self._token = gateway.service_token()

    async def call(self, ask: Ask) -> Told:
        """Sends one direct request and waits for whatever comes of it."""
        params = {"nonce": ask.nonce, "size": ask.size, "padding": "x" * ask.padding}
        order = {"operation": "asset.read", "params": params, "timeoutS": CALL_TIMEOUT_S, "requestId": ask.nonce}
        status, body, outcome = 0, None, None
        with trio.fail_after(ANSWER_WITHIN_S):
            try:
                answer = await self.post(f"/internal/nodes/{ask.install_id}/direct", order)
            except BrokenOff as broken:
                if broken.status != 200:  # only an answer that has begun may break off
                    raise
                status = broken.status
            else:
                status = answer.status
                body, outcome = (answer.body, "succeeded") if status == 200 else (None, answer.json()["outcome"])
        asked = await self._outcome(ask.nonce)
        return Told(ask, status, body, outcome or asked, asked)

    async def _outcome(self, request_id: str) -> str:
        """What the gateway says when it is asked. It remembers no request that found no node: nothing became of that."""
        async with http_connection(self._url, token=self._token) as connection:
            answer = await connection.request("GET", f"/internal/calls/{request_id}")
        return "not_sent" if answer.status == 404 else str(answer.json()["outcome"])

    async def call_all(self, asks: Collection[Ask]) -> list[Told]:
        """All of them at the same time."""
        told: list[Told] = []

        async def one(ask: Ask) -> None:
            told.append(await self.call(ask))

        async with trio.open_nursery() as nursery:
            for ask in asks:
                nursery.start_soon(one, ask)
        return told

    async def get(self, path: str) -> Any:
        """The JSON of a 200; anything else fails the test."""
        async with http_connection(self._url, token=self._token) as connection:
            answer = await connection.request("GET", path)
        assert answer.status == 200, answer
        return answer.json()

    async def post(self, path: str, body: Mapping[str, object]) -> HttpAnswer:
        async with http_connection(self._url, token=self._token) as connection:
            return await connection.post(path, body)

    async def metric(self, name: str) -> float:
        """The sum of a counter or gauge over its labels."""
        async with http_connection(self._url) as connection:
            answer = await connection.request("GET", "/metrics")
        lines = answer.body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def untruths(told: Told, journals: Mapping[InstallId, Journal], cut: Collection[InstallId]) -> list[str]:
    """What is wrong with what a caller was told, by the journals of the nodes. `cut`: whose links were killed."""
    nonce = told.ask.nonce
    asked = journals[told.ask.install_id]
    received = sum(journal.received[nonce] for journal in journals.values())
    wrong = []
    if received > 1:
        wrong.append(f"{nonce} reached nodes {received} times")
    if received != asked.received[nonce]:
        wrong.append(f"{nonce} reached another node than the one it was for")
    if told.outcome != told.asked_outcome:
        wrong.append(f"{nonce} was told {told.outcome}, and {told.asked_outcome} when it asked again")
    match told.outcome:
        case "succeeded":
            if told.body != expected_body(nonce, told.ask.size):
                wrong.append(f"{nonce} was given other bytes than its node sent")
            if asked.answered[nonce] != 1:
                wrong.append(f"{nonce} was given an answer its node does not know of")
        case "not_sent":
            if received:
                wrong.append(f"{nonce} was told that nothing was sent, and its node has it")
        case "unknown":
            if told.ask.install_id not in cut:
                wrong.append(f"{nonce} does not know what became of it, and its node was there all the time")
        case other:
            wrong.append(f"{nonce} was told {other}, which nobody did")
    return wrong
