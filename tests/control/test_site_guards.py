"""What a site says of itself stands in the way of commands for as long as it is the present, and of no stop."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from skygw.errors import ConfigurationChanged, GatewayError, InterlockActive, LocalControl, Retry
from skygw.ids import CommandId, DeviceUid, TelescopeUid
from skygw.nodes.ports import Binding
from skygw.protocol.gateway_frames import EventCommand
from skygw.protocol.interlocks import defies_interlock
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import NodeType, PublishSnapshot, SnapshotStream
from skygw.protocol.streams import StaleReason, StreamName
from skygw.resources import Resource, ResourceKind
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order

Clock = trio.testing.MockClock

UNPARK = {"command_type": "mount.unpark"}
OPEN = {"command_type": "enclosure.open"}
NOT_MOVING = ("camera.exposure.start", "focuser.move", "filter_wheel.position.set", "imager.autofocus", "dome.dance")


class Pair:
    """Two telescopes under one roof that an observatory's node runs, all connected."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.first, self.second, self.hall = Site(), Site(), Site()
        self.observatory_uid = self.first.binding.observatory_uid
        self.roof = DeviceUid(uuid4())
        for site in (self.first, self.second):
            site.binding = _moved_to(self.observatory_uid, site.binding)
        self.hall.telescope_uid, self.hall.device_uid = TelescopeUid(uuid4()), self.roof  # it has no telescope
        roof = Resource(
            self.roof, ResourceKind.DEVICE, self.hall.install_id, self.observatory_uid, device_type="enclosure"
        )
        self.hall.binding = Binding(
            self.hall.install_id,
            "hall",
            NodeType.OBSERVATORY,
            self.observatory_uid,
            frozenset(),
            frozenset({self.roof}),
            {
                self.roof: roof,
                self.observatory_uid: Resource(
                    self.observatory_uid, ResourceKind.OBSERVATORY, self.hall.install_id, self.observatory_uid
                ),
            },
        )
        self.links: dict[Site, PlayedLink] = {}
        self._said = 0

    async def connect(self) -> None:
        for site in (self.first, self.second):
            self.links[site] = await self.gateway.connect(site)
        self.links[self.hall] = await self.gateway.connect(self.hall, node_type=NodeType.OBSERVATORY)

    async def publish(self, site: Site, stream: SnapshotStream, uid: UUID, **data: Any) -> None:
        self._said += 1
        self.links[site].say(
            PublishSnapshot(
                stream=stream,
                data=Opaque.of({"uid": str(uid), **data}),
                observed_at=datetime.now(UTC),
                max_silence_s=30.0,
                live_seq=self._said,
            )
        )
        await trio.testing.wait_all_tasks_blocked()

    async def interlock(self, site: Site, uid: UUID, *reasons: Any, active: Any = True) -> None:
        stream = SnapshotStream.SHUTDOWN_INTERLOCK_SNAPSHOT
        await self.publish(site, stream, uid, active=active, reasons=list(reasons))

    def silence(self, stream: StreamName, uid: UUID) -> None:
        value = self.gateway.snapshots.find(stream, uid)
        assert value is not None
        self.gateway.snapshots.mark_stale(value, StaleReason.SILENT)

    async def refusals(self, site: Site, command: dict[str, Any], **changed: Any) -> list[GatewayError]:
        found, _ = await self.gateway.commands.validate(command_order(site, command, **changed))
        return found

    async def reasons(self, site: Site, command: dict[str, Any], **changed: Any) -> list[str]:
        return [error.reason for error in await self.refusals(site, command, **changed)]

    def on_roof(self) -> dict[str, Any]:
        return {"telescope_uid": None, "device_uid": self.roof}


def _moved_to(observatory_uid: UUID, binding: Binding) -> Binding:
    resources = {uid: replace(found, observatory_uid=observatory_uid) for uid, found in binding.resources.items()}
    return replace(binding, observatory_uid=observatory_uid, resources=resources)


@pytest.fixture
async def pair(nursery: trio.Nursery) -> Pair:
    gateway = Gateway(nursery, leased=False, asks_for_leases=False)
    nursery.start_soon(gateway.commands.run)
    made = Pair(gateway)
    await made.connect()
    return made


# Interlocks.


async def test_an_interlock_refuses_what_moves_and_says_why_and_since_when_that_is_known(pair: Pair) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe", "wind")
    with pytest.raises(InterlockActive) as caught:
        await pair.gateway.commands.submit(command_order(pair.first, UNPARK))
    assert "its node said 0 s ago (weather_unsafe, wind)" in caught.value.message
    assert caught.value.details == {"uid": str(pair.first.telescope_uid), "reasons": ["weather_unsafe", "wind"]}
    assert (caught.value.retry, caught.value.retry_after_s) == (Retry.AFTER, 10.0)
    assert pair.gateway.ledger.admitted == 0
    assert await pair.reasons(pair.first, UNPARK, telescope_uid=None, device_uid=pair.first.device_uid) == [
        "interlock_active"
    ]
    assert await pair.reasons(pair.second, UNPARK) == []


@pytest.mark.parametrize("command_type", ["mount.park", "enclosure.close", *NOT_MOVING])
async def test_an_interlock_leaves_what_parks_or_closes_or_moves_nothing_to_the_node(
    pair: Pair, command_type: str
) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    assert await pair.reasons(pair.first, {"command_type": command_type}) == []


def test_whatever_else_moves_a_mount_or_a_roof_is_against_an_interlock() -> None:
    for command_type in (
        "mount.point",
        "mount.track",
        "mount.offset_relative",
        "mount.unpark",
        "mount.new",
        "enclosure.open",
    ):
        assert defies_interlock(command_type)
    for command_type in ("mount.stop", "enclosure.stop", "mount.slew.abort", "telescope.safe_shutdown"):
        assert not defies_interlock(command_type)


async def test_no_stop_is_asked_about_interlocks_and_local_control(pair: Pair) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    await pair.publish(pair.first, SnapshotStream.TELESCOPE_SNAPSHOT, pair.first.telescope_uid, local_control=True)
    for command_type in ("mount.stop", "enclosure.stop", "camera.exposure.abort", "telescope.safe_shutdown"):
        order = command_order(pair.first, {"command_type": command_type})
        await pair.gateway.commands.submit(order)
        assert (await pair.links[pair.first].hear_next(EventCommand)).command_id == order.command_id


@pytest.mark.parametrize("active", [False, "yes", 1, None])
async def test_only_what_is_plainly_active_refuses(pair: Pair, active: Any) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, "calm", active=active)
    assert await pair.reasons(pair.first, UNPARK) == []


async def test_a_value_that_is_not_the_present_decides_nothing(pair: Pair) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    pair.silence(StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT, pair.first.telescope_uid)
    assert await pair.reasons(pair.first, UNPARK) == []
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    assert await pair.reasons(pair.first, UNPARK) == ["interlock_active"]
    await pair.interlock(pair.first, pair.first.telescope_uid, active=False)
    assert await pair.reasons(pair.first, UNPARK) == []


async def test_an_interlock_of_any_telescope_keeps_the_roof_over_it_shut(pair: Pair) -> None:
    await pair.interlock(pair.second, pair.second.telescope_uid, "weather_unsafe")
    assert await pair.reasons(pair.hall, OPEN, **pair.on_roof()) == ["interlock_active"]
    assert await pair.reasons(pair.hall, {"command_type": "enclosure.close"}, **pair.on_roof()) == []
    assert await pair.reasons(pair.first, OPEN) == ["interlock_active"]
    assert await pair.reasons(pair.first, UNPARK) == []


async def test_who_has_a_roof_of_its_own_is_not_asked_about_the_neighbours_interlock(pair: Pair) -> None:
    own = DeviceUid(uuid4())
    mine = Resource(
        own, ResourceKind.DEVICE, pair.first.install_id, pair.observatory_uid, pair.first.telescope_uid, "enclosure"
    )
    binding = pair.first.binding
    pair.first.binding = replace(binding, devices=binding.devices | {own}, resources={**binding.resources, own: mine})
    pair.links[pair.first] = await pair.gateway.connect(pair.first)
    pair.gateway.controllers.of[own] = pair.first.install_id
    await pair.interlock(pair.second, pair.second.telescope_uid, "weather_unsafe")
    assert await pair.reasons(pair.first, OPEN) == []
    assert await pair.reasons(pair.first, OPEN, telescope_uid=None, device_uid=own) == []
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    assert await pair.reasons(pair.first, OPEN, telescope_uid=None, device_uid=own) == ["interlock_active"]


async def test_an_interlock_of_the_observatory_or_the_roof_reaches_what_is_under_it(pair: Pair) -> None:
    await pair.interlock(pair.hall, pair.roof, "jammed")
    assert await pair.reasons(pair.hall, OPEN, **pair.on_roof()) == ["interlock_active"]
    assert await pair.reasons(pair.first, OPEN) == ["interlock_active"]
    assert await pair.reasons(pair.first, UNPARK) == []
    await pair.interlock(pair.hall, pair.observatory_uid, "fire")
    assert await pair.reasons(pair.second, UNPARK) == ["interlock_active"]


async def test_the_words_of_a_node_are_taken_in_moderation(pair: Pair) -> None:
    await pair.interlock(pair.first, pair.first.telescope_uid, 7, *["long" * 100] * 50)
    [refusal] = await pair.refusals(pair.first, UNPARK)
    assert refusal.details["reasons"] == [("long" * 100)[:200]] * 20
    stream = SnapshotStream.SHUTDOWN_INTERLOCK_SNAPSHOT
    await pair.publish(pair.first, stream, pair.first.telescope_uid, active=True, reasons="rain")
    [refusal] = await pair.refusals(pair.first, UNPARK)
    assert refusal.details["reasons"] == []


# Local control.


@pytest.mark.parametrize("member", ["local_control", "localControl"])
async def test_whoever_is_on_site_keeps_out_every_command_but_a_stop(pair: Pair, member: str) -> None:
    await pair.publish(pair.first, SnapshotStream.TELESCOPE_SNAPSHOT, pair.first.telescope_uid, **{member: True})
    for command_type in ("mount.park", "enclosure.close", "camera.exposure.start", "focuser.move"):
        with pytest.raises(LocalControl) as caught:
            await pair.gateway.commands.submit(command_order(pair.first, {"command_type": command_type}))
        assert caught.value.details == {"uid": str(pair.first.telescope_uid)}
        assert (caught.value.retry, caught.value.retry_after_s) == (Retry.AFTER, 10.0)
    device = {"telescope_uid": None, "device_uid": pair.first.device_uid}
    assert await pair.reasons(pair.first, UNPARK, **device) == ["local_control"]
    assert await pair.reasons(pair.second, UNPARK) == []
    assert await pair.reasons(pair.hall, OPEN, **pair.on_roof()) == []
    pair.silence(StreamName.TELESCOPE_SNAPSHOT, pair.first.telescope_uid)
    assert await pair.reasons(pair.first, UNPARK) == []


async def test_a_roof_without_a_telescope_says_itself_that_it_is_under_local_control(pair: Pair) -> None:
    await pair.publish(pair.hall, SnapshotStream.DEVICE_SNAPSHOT, pair.roof, local_control=True)
    assert await pair.reasons(pair.hall, OPEN, **pair.on_roof()) == ["local_control"]
    await pair.publish(pair.hall, SnapshotStream.DEVICE_SNAPSHOT, pair.roof, local_control=False)
    assert await pair.reasons(pair.hall, OPEN, **pair.on_roof()) == []


# The configuration.


async def test_a_caller_who_takes_the_hardware_for_another_is_told_which_it_is(pair: Pair) -> None:
    pair.gateway.graph_news.took(pair.observatory_uid, 118)
    with pytest.raises(ConfigurationChanged, match="118") as caught:
        await pair.gateway.commands.submit(command_order(pair.first, UNPARK, graph_revision=117))
    assert (caught.value.details, caught.value.retry) == ({"graphRevision": 118}, Retry.NEVER)
    assert await pair.reasons(pair.first, UNPARK, graph_revision=118) == []
    assert await pair.reasons(pair.first, UNPARK) == []


async def test_where_no_revision_is_known_the_callers_goes_to_the_node(pair: Pair) -> None:
    pair.gateway.graph_news.took(pair.observatory_uid, 118)
    pair.gateway.graph_news.lost()  # a newer one may be there, and nobody would say so
    await pair.gateway.commands.submit(command_order(pair.second, UNPARK, graph_revision=117))
    assert (await pair.links[pair.second].hear_next(EventCommand)).graph_revision == 117


# All at once.


async def test_a_dry_run_names_everything_in_the_order_it_is_asked_and_a_refusal_uses_no_id_up(pair: Pair) -> None:
    pair.gateway.graph_news.took(pair.observatory_uid, 118)
    await pair.interlock(pair.first, pair.first.telescope_uid, "weather_unsafe")
    await pair.publish(pair.first, SnapshotStream.TELESCOPE_SNAPSHOT, pair.first.telescope_uid, local_control=True)
    order = command_order(pair.first, UNPARK, graph_revision=117, command_id=CommandId(uuid4()))
    found, _ = await pair.gateway.commands.validate(order)
    assert [error.reason for error in found] == ["local_control", "interlock_active", "configuration_changed"]
    for expected in (LocalControl, InterlockActive, ConfigurationChanged):
        with pytest.raises(expected):
            await pair.gateway.commands.submit(order)
        if expected is LocalControl:
            stream = SnapshotStream.TELESCOPE_SNAPSHOT
            await pair.publish(pair.first, stream, pair.first.telescope_uid, local_control=False)
        elif expected is InterlockActive:
            await pair.interlock(pair.first, pair.first.telescope_uid, active=False)
    await pair.gateway.commands.submit(replace(order, graph_revision=118))
    assert (await pair.links[pair.first].hear_next(EventCommand)).command_id == order.command_id
