"""Connected nodes are told of a newer hardware graph of their observatory, soon and not too often."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.graph_news import GraphNews
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.protocol.gateway_frames import EventGraphChanged, Welcome
from tests.fakes.rooms import Gateway, PlayedLink, Site

Clock = trio.testing.MockClock


@pytest.fixture
async def gateway(autojump_clock: Clock) -> AsyncIterator[Gateway]:
    async with trio.open_nursery() as nursery:
        gateway = Gateway(nursery)
        nursery.start_soon(gateway.graph_news.run)
        yield gateway
        nursery.cancel_scope.cancel()


def told(link: PlayedLink) -> list[int]:
    frames = [json.loads(message) for message in link.heard_so_far()]
    return [frame["revision"] for frame in frames if frame["kind"] == "event_graph_changed"]


async def test_the_nodes_of_an_observatory_are_told_and_others_are_not(gateway: Gateway) -> None:
    here, there = Site(), Site()
    links = [await gateway.connect(here), await gateway.connect(there)]
    gateway.graph_news.took(here.binding.observatory_uid, 7)
    with trio.fail_after(1):
        frame = await links[0].hear_next(EventGraphChanged)
    assert (frame.revision, frame.observatory_uid) == (7, here.binding.observatory_uid)
    await trio.sleep(1)
    assert told(links[1]) == []


async def test_of_many_changes_at_once_a_node_is_told_the_last_and_within_a_second(gateway: Gateway) -> None:
    site = Site()
    link = await gateway.connect(site)
    for revision in range(1, 101):
        gateway.graph_news.took(site.binding.observatory_uid, revision)
        await trio.sleep(0.005)
    await trio.sleep(0.5)
    revisions = told(link)
    assert revisions[-1] == 100
    assert len(revisions) <= 5


async def test_an_older_revision_that_comes_later_is_passed_over(gateway: Gateway) -> None:
    site = Site()
    await gateway.connect(site)
    gateway.graph_news.took(site.binding.observatory_uid, 7)
    gateway.graph_news.took(site.binding.observatory_uid, 6)
    assert await gateway.graph_news.current(site.install_id) == 7


async def test_the_welcome_has_the_revision_while_it_is_known(gateway: Gateway) -> None:
    site = Site()
    gateway.graph_news.took(site.binding.observatory_uid, 7)
    link = gateway.accept(site)
    link.say(site.hello())
    assert (await link.hear_next(Welcome)).graph_revision == 7
    gateway.graph_news.lost()
    link = gateway.accept(site)
    link.say(site.hello())
    assert (await link.hear_next(Welcome)).graph_revision is None


async def test_who_was_welcomed_while_none_was_known_is_told_when_it_is(gateway: Gateway) -> None:
    site = Site()
    gateway.graph_news.took(site.binding.observatory_uid, 7)
    gateway.graph_news.lost()
    link = await gateway.connect(site)
    gateway.graph_news.took(site.binding.observatory_uid, 7)
    gateway.graph_news.began()
    assert (await link.hear_next(EventGraphChanged)).revision == 7
    assert gateway.graph_news.revision_of(site.binding.observatory_uid) == 7


async def test_of_an_installation_that_is_not_here_no_revision_is_known(gateway: Gateway) -> None:
    assert await gateway.graph_news.current(Site().install_id) is None
    assert gateway.graph_news.revision_of(uuid4()) is None


def test_a_loss_is_counted_and_begins_with_nothing_known() -> None:
    losses: list[None] = []
    news = GraphNews(ConnectionRegistry(), count_loss=lambda: losses.append(None))
    news.began()
    assert news.hears
    news.lost()
    assert (news.hears, len(losses)) == (False, 1)
