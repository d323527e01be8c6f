"""What the gateway writes is what a subscriber reads, and a payload is looked into only when it is asked for."""

from uuid import uuid4

import pytest

from skygw.client.stream_items import Changed, Said, Unreadable
from skygw.ids import InstallId
from skygw.protocol.streams import EndReason, StaleReason, StreamName
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.dialects import WITH_EXTENSIONS
from skygw.telemetry.log import LogEvent, LogKind
from skygw.telemetry.value import Value
from tests.fakes.moments import NOW


def changed(text: str) -> Changed:
    message = (
        '{"kind":"event_asset","subscription_id":"1","position":"l1","prev":null,"install_id":null,'
        f'"observed_at":null,"received_at":"2026-07-01T03:00:00Z","data":{text}}}'
    )
    return Said(message).changed("asset", heard_at=None)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"uid":"x","data":{"data":1},"more":","}',
        '{ "a" :\n 1.0e2,"data":[] }',
        '{"é":"\\u00e9","b":",\\"data\\":{}}"}',
    ],
)
def test_a_payload_is_carried_byte_for_byte(text: str) -> None:
    assert changed(text).text == text


@pytest.mark.parametrize("text", ["[]", "1", '{"a":', "nothing"])
def test_a_payload_that_is_no_object_is_noticed_when_it_is_looked_into(text: str) -> None:
    item = changed(text)
    with pytest.raises(Unreadable):
        _ = item.data


@pytest.mark.parametrize("text", ["{}", '{"uid":null}', '{"uid":"me"}', '{"uid":7}'])
def test_an_event_need_not_be_about_a_resource(text: str) -> None:
    assert changed(text).uid is None


async def test_a_value_is_read_as_the_gateway_writes_it() -> None:
    uid, install_id = uuid4(), InstallId(uuid4())
    resource = Resource(uid=uid, kind=ResourceKind.DEVICE, install_id=install_id, observatory_uid=uuid4())
    value = Value(StreamName.DEVICE_SNAPSHOT, resource)
    value.data = f'{{"uid":"{uid}","n":1}}'
    value.observed_at = value.received_at = NOW
    value.max_silence_s = 30.0
    value.stale = StaleReason.SILENT
    message = WITH_EXTENSIONS.value("1", value, position="s2", prev="s1", fields=None)
    assert message is not None
    item = Said(message).changed("device_snapshot", heard_at=None)

    assert (item.uid, item.install_id, item.data["n"]) == (uid, install_id, 1)
    assert (item.stale, item.max_silence_s, item.position, item.received_at) == ("silent", 30.0, "s2", NOW)

    told = WITH_EXTENSIONS.stale("1", value, position="s3", prev="s2", reason=StaleReason.NODE_OFFLINE)
    assert told is not None
    stale = Said(told).stale()

    assert (stale.uid, stale.reason, stale.last_observed_at) == (uid, "node_offline", NOW)


def test_events_gaps_and_ends_are_read_as_the_gateway_writes_them() -> None:
    install_id = InstallId(uuid4())
    event = LogEvent(7, LogKind.EVENT, StreamName.NODE_EVENT, install_id, None, None, None, None, NOW, '{"e":1}', 3)
    written = WITH_EXTENSIONS.event("1", event, position="l7", prev=None)
    assert written is not None
    item = Said(written).changed("node_event", heard_at=None)

    assert (item.install_id, item.observed_at, item.received_at, item.data) == (install_id, None, NOW, {"e": 1})

    missed = WITH_EXTENSIONS.gap("1", position="l8", prev="l7", missing=3, reason="declared_by_node", event=event)
    assert missed is not None
    gap = Said(missed).gap()

    assert (gap.from_, gap.to, gap.count, gap.reason, gap.install_id) == (
        "l7",
        "l8",
        3,
        "declared_by_node",
        install_id,
    )

    last = WITH_EXTENSIONS.ended("1", position=None, reason=EndReason.SLOW_CONSUMER, message="No “more”.")
    assert last is not None
    assert Said(last).text("message") == "No “more”."
