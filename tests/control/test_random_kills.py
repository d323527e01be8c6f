"""Many calls on many sessions with sockets dying at random moments: each caller gets one answer, and a true one."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from skygw.errors import GatewayError, Outcome, Reached
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import DirectRequest
from tests.fakes.answers import chunk_of, end_of, error_of, start_of
from tests.fakes.rooms import Gateway, PlayedLink, Site, direct_order

if TYPE_CHECKING:
    from skygw.protocol.frame import Frame

SESSIONS = 10
CALLS = 20


class JournalingNode:
    """A node of a site that keeps coming back, answers at its own pace, and writes down what it received and ended."""

    def __init__(self, gateway: Gateway, site: Site, chance: Random) -> None:
        self.received: list[str] = []
        self.ended: set[str] = set()
        self.link: PlayedLink | None = None
        self._gateway = gateway
        self._site = site
        self._chance = chance

    async def run(self) -> None:
        while True:
            self.link = await self._gateway.connect(self._site)
            async with trio.open_nursery() as life:
                life.start_soon(self._listen, self.link, life)
                await self.link.served.wait()
                life.cancel_scope.cancel()
            await trio.sleep(self._chance.uniform(0.1, 2))

    async def _listen(self, link: PlayedLink, life: trio.Nursery) -> None:
        while True:
            try:
                request = await link.hear_next(DirectRequest)
            except trio.EndOfChannel:
                return
            self.received.append(request.operation)
            life.start_soon(self._answer, link, request)

    async def _answer(self, link: PlayedLink, request: DirectRequest) -> None:
        payload = request.operation.encode()
        last: Frame = error_of(request.id, "not_found") if self._chance.random() < 0.1 else end_of(request.id, payload)
        try:
            answer: list[Frame | bytes] = [start_of(request.id), chunk_of(request.id, 0, payload), last]
            for message in answer:
                await trio.sleep(self._chance.expovariate(1))
                link.say(message)
            self.ended.add(request.operation)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return


async def stall_and_kill(gateway: Gateway, site: Site, node: JournalingNode, chance: Random) -> None:
    """Sockets die in every way: cut, closed by the node, ended by the gateway, stalled, taken over."""
    while True:
        await trio.sleep(chance.expovariate(1 / 3))
        session, link = gateway.registry.current(site.install_id), node.link
        if session is None or link is None:
            continue
        match chance.randrange(5):
            case 0:
                link.hang_up()
            case 1:
                link.hang_up(1001, "going")
            case 2:
                session.end(CloseCode.REVOKED, "revoked")
            case 3:
                link.stall()
            case 4:
                await gateway.connect(site)  # a socket that answers nobody, until it is cut
                await trio.sleep(chance.uniform(0, 2))
                usurper = gateway.registry.current(site.install_id)
                if usurper is not None:
                    usurper.end(CloseCode.DRAINING, "draining")


@pytest.mark.parametrize("seed", range(6))
async def test_every_caller_gets_one_answer_and_what_it_says_of_its_request_is_true(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    chance = Random(seed)  # noqa: S311 - repeatable, not secret
    answers: dict[str, list[bytes | GatewayError]] = {}
    nodes: list[JournalingNode] = []

    async def ask(gateway: Gateway, site: Site, operation: str) -> None:
        await trio.sleep(chance.uniform(0, 20))
        order = direct_order(site, operation=operation, timeout_s=chance.uniform(0.5, 15), connect_wait_s=2)
        try:
            async with gateway.rpc.call(order) as answer:
                whole = b"".join([piece async for piece in answer])
        except GatewayError as error:
            answers.setdefault(operation, []).append(error)
        else:
            answers.setdefault(operation, []).append(whole)

    async with trio.open_nursery() as world:
        gateway = Gateway(world)
        async with trio.open_nursery() as callers:
            for number in range(SESSIONS):
                site = Site()
                node = JournalingNode(gateway, site, chance)
                nodes.append(node)
                world.start_soon(node.run)
                world.start_soon(stall_and_kill, gateway, site, node, chance)
                for call in range(CALLS):
                    callers.start_soon(ask, gateway, site, f"op.{number}.{call}")
        assert gateway.rpc.in_flight == 0
        assert all(len(session.calls) == 0 for session in gateway.registry)
        world.cancel_scope.cancel()

    received = Counter(operation for node in nodes for operation in node.received)
    ended = set().union(*(node.ended for node in nodes))
    assert {len(given) for given in answers.values()} == {1}
    assert len(answers) == SESSIONS * CALLS
    assert set(received.values()) <= {1}
    for operation, (answer,) in answers.items():
        if isinstance(answer, bytes):
            assert answer == operation.encode()
            assert operation in ended
        elif answer.outcome is Outcome.NOT_SENT:
            assert received[operation] == 0, answer
        elif answer.outcome in (Outcome.REFUSED, Outcome.FAILED):
            assert operation in ended
        else:
            assert answer.outcome is Outcome.UNKNOWN
        if isinstance(answer, GatewayError) and answer.reached is Reached.RUNNING:
            assert received[operation] == 1
    kinds = Counter(answer.reason if isinstance(answer, GatewayError) else "ok" for (answer,) in answers.values())
    assert {"ok", "link_lost", "deadline_exceeded"} <= set(kinds)
