"""Direct requests on a socket: each with its own answer or error, none of them in the way of a command."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import trio
import trio.testing

from skygw.conversations.direct import CHUNK_BYTES, MAX_DIRECT
from skygw.ids import CallId
from skygw.nodes.session import SessionRules
from skygw.protocol.chunks import Chunk, pack_chunk, unpack_chunk
from skygw.protocol.gateway_frames import DirectCancel, DirectRequest, EventCommand
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart
from tests.conversations.talk import Talk, direct, gateway_and_node, publish, talking
from tests.fakes.rooms import Gateway, PlayedLink, Site

Clock = trio.testing.MockClock


@asynccontextmanager
async def talking_to_a_node(*, extensions: bool = True) -> AsyncIterator[tuple[Gateway, Site, PlayedLink, Talk]]:
    async with (
        gateway_and_node(rules=SessionRules(max_calls=2 * MAX_DIRECT)) as (gateway, site, link),
        talking(gateway, extensions=extensions) as talk,
    ):
        yield gateway, site, link, talk


def answer(link: PlayedLink, request: DirectRequest, payload: bytes, *, piece: int = 100_000) -> None:
    link.say(DirectResponseStart(id=request.id, content_type="image/fits", total_size=len(payload)))
    pieces = [payload[at : at + piece] for at in range(0, len(payload), piece)]
    for seq, data in enumerate(pieces):
        link.say(pack_chunk(Chunk(request.id, seq, data)))
    digest = hashlib.sha256(payload).hexdigest()
    link.say(DirectResponseEnd(id=request.id, chunks=len(pieces), total_size=len(payload), sha256=digest))


async def test_an_answer_comes_in_binary_pieces_under_the_callers_id(autojump_clock: Clock) -> None:
    async with talking_to_a_node() as (_, site, link, talk):
        asked, payload = direct(site, timeout_s=5.0), bytes(range(256)) * 1_000
        talk.say(asked)
        request = await link.hear_next(DirectRequest)
        answer(link, request, payload)
        start = await talk.hear()
        assert (start["kind"], start["id"], start["total_size"]) == ("direct_response_start", asked["id"], len(payload))
        got, seq = b"", 0
        while isinstance(message := await talk.hear_message(), bytes):
            chunk = unpack_chunk(message)
            assert (chunk.id, chunk.seq, len(chunk.payload) <= CHUNK_BYTES) == (UUID(asked["id"]), seq, True)
            got += chunk.payload
            seq += 1
        assert got == payload
        assert f'"chunks":{seq},"total_size":{len(payload)},"sha256":"{hashlib.sha256(payload).hexdigest()}"' in message


async def test_as_published_the_pieces_are_text(autojump_clock: Clock) -> None:
    async with talking_to_a_node(extensions=False) as (_, site, link, talk):
        asked, payload = direct(site), b"hello" * 10_000
        talk.say(asked)
        answer(link, await link.hear_next(DirectRequest), payload)
        heard = [await talk.hear()]
        while heard[-1]["kind"] != "direct_response_end":
            heard.append(await talk.hear())
        assert {one["id"] for one in heard} == {asked["id"]}
        assert b"".join(base64.b64decode(one["data"]) for one in heard[1:-1]) == payload
        assert [one["seq"] for one in heard[1:-1]] == list(range(heard[-1]["chunks"]))


async def test_each_failure_is_its_own(autojump_clock: Clock) -> None:
    async with talking_to_a_node() as (gateway, site, link, talk):
        refused, late, offline = direct(site), direct(site, timeout_s=1), direct(site)
        nobody = Site()
        gateway.controllers.of[nobody.telescope_uid] = nobody.install_id
        offline["install_id"] = str(nobody.install_id)
        unknown = direct(Site())
        talk.say([refused, late, offline, unknown])
        requests = [await link.hear_next(DirectRequest) for _ in range(2)]
        for request in requests:
            if request.deadline_ms > 1_000:
                link.say(DirectError(id=request.id, code="not_found", message="No such asset."))
        heard = {one["id"]: one for one in [await talk.hear() for _ in range(4)]}
        assert {one["kind"] for one in heard.values()} == {"direct_error"}
        told = {
            key: (heard[asked["id"]]["code"], heard[asked["id"]]["details"]["reason"])
            for key, asked in (("refused", refused), ("late", late), ("offline", offline), ("unknown", unknown))
        }
        assert told == {
            "refused": ("not_found", "node_refused"),
            "late": ("internal", "deadline_exceeded"),
            "offline": ("conflict", "node_offline"),
            "unknown": ("not_found", "not_found"),
        }


async def test_an_id_under_way_and_one_too_many_are_refused_and_a_place_comes_back(autojump_clock: Clock) -> None:
    async with talking_to_a_node() as (_, site, link, talk):
        asked = [direct(site) for _ in range(MAX_DIRECT + 1)]
        talk.say(asked[:1], asked[0])
        again = await talk.hear()
        assert (again["kind"], again["details"]["reason"], again["id"]) == ("error", "id_reused", asked[0]["id"])
        talk.say(asked[1:])
        one_too_many = await talk.hear()
        assert (one_too_many["details"]["reason"], one_too_many["id"]) == ("busy", asked[-1]["id"])
        first = await link.hear_next(DirectRequest)
        answer(link, first, b"")
        assert [(await talk.hear())["kind"] for _ in range(2)] == ["direct_response_start", "direct_response_end"]
        talk.say(asked[-1])
        for _ in range(MAX_DIRECT):
            await link.hear_next(DirectRequest)


async def test_a_cancel_reaches_the_node_and_is_the_last_word(autojump_clock: Clock) -> None:
    async with talking_to_a_node() as (_, site, link, talk):
        asked = direct(site)
        talk.say(asked)
        request = await link.hear_next(DirectRequest)
        talk.say({"kind": "direct_cancel", "id": asked["id"]})
        assert (await link.hear_next(DirectCancel)).id == request.id
        end = await talk.hear()
        assert (end["kind"], end["details"]["reason"], end["details"]["outcome"]) == (
            "direct_error",
            "canceled",
            "unknown",
        )
        talk.say({"kind": "direct_cancel", "id": asked["id"]})
        assert (await talk.hear())["code"] == "not_found"


async def test_requests_end_at_the_node_with_their_socket(autojump_clock: Clock) -> None:
    async with gateway_and_node() as (gateway, site, link):
        async with talking(gateway) as talk:
            talk.say(direct(site))
            request = await link.hear_next(DirectRequest)
        assert (await link.hear_next(DirectCancel)).id == request.id
        assert gateway.rpc.in_flight == 0


async def test_an_answer_is_read_as_fast_as_the_socket_takes_it_and_a_command_goes_before_it(
    autojump_clock: Clock,
) -> None:
    async with talking_to_a_node() as (gateway, site, link, talk):
        asked = [direct(site) for _ in range(4)]
        talk.say(*asked)
        requests = [await link.hear_next(DirectRequest) for _ in asked]
        talk.link.stall()
        for request in requests:
            link.say(DirectResponseStart(id=request.id, content_type="image/fits"))
            for seq in range(4):
                link.say(pack_chunk(Chunk(request.id, seq, bytes(request.credit // 4))))
        await trio.testing.wait_all_tasks_blocked()
        frames = [json.loads(frame) for frame in link.heard_so_far() if isinstance(frame, str)]
        granted = sum(frame["bytes"] for frame in frames if frame["kind"] == "direct_credit")
        assert granted < requests[0].credit // 4
        said = publish(site)
        talk.say(said)
        await link.hear_next(EventCommand)
        await trio.testing.wait_all_tasks_blocked()
        talk.link.flow()
        before = 0
        while not isinstance(message := await talk.hear_message(), str) or said["command_id"] not in message:
            before += not isinstance(message, str)
        assert before <= 1
        pieces = [await talk.hear_message() for _ in range(80)]
        ids = [unpack_chunk(piece).id for piece in pieces if isinstance(piece, bytes)]
        assert min(ids.count(CallId(UUID(one["id"]))) for one in asked) >= 15
        assert gateway.rpc.in_flight == len(asked)


async def test_a_request_for_what_is_no_uuid_is_refused(autojump_clock: Clock) -> None:
    async with talking_to_a_node() as (_, site, _, talk):
        for wrong in ({"id": "7"}, {"install_id": "the one on the hill"}, {"operation": "../etc"}, {"path": "/etc"}):
            talk.say({**direct(site), "id": str(uuid4()), **wrong})
            assert (await talk.hear())["code"] == "invalid"
