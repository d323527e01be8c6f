"""A whole fleet on one gateway: every call is answered once, by its own node, and what callers are told is true."""

from pathlib import Path
from random import Random

import pytest
import trio

from skygw.ids import InstallId
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.gateway_frames import DirectRequest
from skygw.protocol.node_frames import DirectResponseStart
from tests.fakes.gateway_process import gateway_process
from tests.fakes.scripted_node import CHUNK_BYTES, OnRequest, ScriptedNode, answer, answer_together, body_of
from tests.fleet.callers import Ask, Service, untruths
from tests.fleet.fleet import FLEET, LOOPBACK_LIMITS, Gathering, connected, installations, make_known, until

pytestmark = pytest.mark.timeout(300)  # with 500 installations, on a machine that has other things to do

CALLED = 10
IN_FLIGHT = 20
SEED = 20260701


def asks_of(install_ids: list[InstallId], *, padding: int = 0) -> list[Ask]:
    """`IN_FLIGHT` requests of each, answered with up to five chunks."""
    random = Random(SEED)  # noqa: S311 - the same sizes at every run
    return [
        Ask(install_id, nonce=f"{install_id}-{number}", size=random.randrange(1, 5 * CHUNK_BYTES), padding=padding)
        for install_id in install_ids
        for number in range(IN_FLIGHT)
    ]


async def test_a_fleet_that_connects_at_once_answers_every_call_once_and_with_its_own_bytes(tmp_path: Path) -> None:
    async with gateway_process(tmp_path / "hub", **LOOPBACK_LIMITS) as gateway:
        caller = Service(gateway)
        install_ids = installations(SEED)
        await make_known(gateway, install_ids)
        nodes = [ScriptedNode(install_id, Gathering(IN_FLIGHT)) for install_id in install_ids]
        called = [node.install_id for node in Random(SEED).sample(nodes, CALLED)]  # noqa: S311
        async with connected(gateway, nodes):
            sessions = await caller.metric("skygw_node_sessions")
            told = await caller.call_all(asks_of(called))
            ended_calls = await caller.metric("skygw_calls_total")
            late_replies = await caller.metric("skygw_late_replies_total")

    journals = {node.install_id: node.journal for node in nodes}
    assert sessions == FLEET
    assert [node.epochs for node in nodes] == [[1]] * FLEET
    assert len(told) == CALLED * IN_FLIGHT
    assert {each.outcome for each in told} == {"succeeded"}
    assert [wrong for each in told for wrong in untruths(each, journals, cut=())] == []
    assert (ended_calls, late_replies) == (CALLED * IN_FLIGHT, 0)
    assert gateway.complaints() == []


# The ways in which a link dies under calls.


async def dies_with_all_requests_unanswered(node: ScriptedNode, request: DirectRequest) -> None:
    if node.journal.received.total() == IN_FLIGHT:
        node.kill()


async def dies_halfway_through_the_requests(node: ScriptedNode, request: DirectRequest) -> None:
    if node.journal.received.total() == IN_FLIGHT // 2:
        node.kill()


async def dies_after_half_of_the_answers(node: ScriptedNode, request: DirectRequest) -> None:
    await answer(node, request)
    if node.journal.answered.total() == IN_FLIGHT // 2:
        node.kill()


class DiesInTheMiddleOfAnswers:
    """Answers half of the requests, begins to answer the rest, and dies."""

    def __init__(self) -> None:
        self._waiting: list[DirectRequest] = []

    async def __call__(self, node: ScriptedNode, request: DirectRequest) -> None:
        self._waiting.append(request)
        if len(self._waiting) < IN_FLIGHT:
            return
        await answer_together(node, self._waiting[: IN_FLIGHT // 2])
        for begun in self._waiting[IN_FLIGHT // 2 :]:
            await node.say(DirectResponseStart(id=begun.id, content_type="application/octet-stream"))
            await node.say(pack_chunk(Chunk(begun.id, 0, body_of(begun)[:100])))
        node.kill()


def ways_to_die() -> list[OnRequest]:
    return [
        dies_with_all_requests_unanswered,
        dies_halfway_through_the_requests,
        dies_after_half_of_the_answers,
        DiesInTheMiddleOfAnswers(),
    ]


async def test_every_caller_is_told_the_truth_when_a_tenth_of_the_sockets_is_killed(tmp_path: Path) -> None:
    # The deaf one is killed by us, and not given up before by the gateway while a busy machine gathers its calls.
    async with gateway_process(tmp_path / "hub", send_timeout_s=60.0, **LOOPBACK_LIMITS) as gateway:
        caller = Service(gateway)
        install_ids = installations(SEED)
        await make_known(gateway, install_ids)
        random = Random(SEED)  # noqa: S311 - the same victims at every run
        nodes = [ScriptedNode(install_id, Gathering(IN_FLIGHT)) for install_id in random.sample(install_ids, FLEET)]
        called = nodes[:CALLED]
        deaf, *dying = called[: CALLED // 2]
        deaf.is_deaf = True
        for node, end in zip(dying, ways_to_die(), strict=True):
            node.on_request = end
        # Half of the called nodes die, and as many others as make a tenth of the fleet.
        bystanders = random.sample(nodes[CALLED:], max(1, FLEET // 10 - CALLED // 2))
        cut = {node.install_id for node in (deaf, *dying, *bystanders)}

        async with connected(gateway, nodes):
            asks = asks_of([node.install_id for node in called if node is not deaf])
            asks += asks_of([deaf.install_id], padding=50_000)
            async with trio.open_nursery() as killing:
                killing.start_soon(kill_once_requests_wait, caller, deaf)
                for node in bystanders:
                    node.kill()
                told = await caller.call_all(asks)
            await until(lambda: sessions_are(caller, FLEET - len(cut)))
            in_flight = await caller.metric("skygw_calls_in_flight")
            after = await caller.call_all(
                [Ask(node.install_id, f"after-{node.install_id}", size=10) for node in (deaf, *dying)]
            )

    journals = {node.install_id: node.journal for node in nodes}
    assert sorted(each.ask.nonce for each in told) == sorted(ask.nonce for ask in asks)
    assert [wrong for each in [*told, *after] for wrong in untruths(each, journals, cut)] == []
    assert {each.outcome for each in told if each.ask.install_id not in cut} == {"succeeded"}
    outcomes = {node.install_id: {t.outcome for t in told if t.ask.install_id == node.install_id} for node in called}
    assert outcomes[deaf.install_id] == {"unknown", "not_sent"}
    assert outcomes[dying[0].install_id] == {"unknown"}
    assert "unknown" in outcomes[dying[1].install_id]
    assert {each.outcome for each in after} == {"not_sent"}
    assert in_flight == 0
    assert {line["install_id"] for line in gateway.logged("node gone")} >= {str(install_id) for install_id in cut}
    assert gateway.complaints() == []


async def kill_once_requests_wait(caller: Service, deaf: ScriptedNode) -> None:
    """Kills a node when all its calls are in flight and part of them could not be handed to its socket."""

    async def stuck() -> bool:
        view = await caller.get(f"/internal/nodes/{deaf.install_id}")
        return bool(view["callsInFlight"] == IN_FLIGHT and view["queueBytes"]["data"])

    await until(stuck)
    deaf.kill()


async def sessions_are(caller: Service, count: int) -> bool:
    return await caller.metric("skygw_node_sessions") == count
