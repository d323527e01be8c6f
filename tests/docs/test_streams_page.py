"""The subscriber's guide against the streams: what somebody writes a subscriber from must not be wrong."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from skygw.protocol.codec import Read, from_subscriber, to_subscriber
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.streams import (
    MAX_FIELDS,
    MAX_FILTER_VALUES,
    MAX_RATE_HZ,
    RETAINED_STREAMS,
    EndReason,
    StaleReason,
    StreamFilter,
    StreamName,
    StreamOptions,
)
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.routers.event_streams import EVENT_STREAM_ROUTE, HEAD, RETRY_MS
from skygw.routers.openapi import wire_path
from skygw.routers.route_table import STREAM_QUERY
from skygw.serving.config import ListenerConfig
from skygw.telemetry import logged_subscription, retained_subscription, subscription
from skygw.telemetry.outlet import MAX_SUBSCRIPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8").split("\n## Streams\n")[1]
MODELS = {**from_subscriber.models, **to_subscriber.models}
DIRECTIONS: dict[str, Any] = {"S": from_subscriber, "G": to_subscriber}
TRANSCRIPT = re.findall(r"^([SG]) (.+)$", PAGE, re.MULTILINE)
REASONS_OF_GAPS = {"conflated", "resumed", "gateway_restarted", "declared_by_node", "never_taken", "no_longer_kept"}


def section(title: str) -> str:
    return PAGE.split(f"\n### {title}\n")[1].split("\n### ")[0]


def first_cells(text: str) -> set[str]:
    """What the first cells of the tables name."""
    return {name for cell in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}


def parameters() -> set[str]:
    return {to_camel(name) for name in (*StreamFilter.model_fields, *StreamOptions.model_fields)}


@pytest.mark.parametrize("kind", MODELS)
def test_every_frame_and_every_member_of_it_is_named(kind: str) -> None:
    assert re.search(rf"`{kind}\b", PAGE)
    members = {info.alias or name for name, info in MODELS[kind].model_fields.items()} - {"kind"}
    assert {name for name in members if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_every_line_of_the_example_is_a_frame_of_its_side_and_nothing_is_lost_in_it() -> None:
    items = [DIRECTIONS[side].decode(line)[0] for side, line in TRANSCRIPT]
    assert len(items) > 5
    assert [item for item in items if not isinstance(item, Read)] == []
    told = [item.frame for item in items if hasattr(item.frame, "prev")]
    assert [frame.prev for frame in told[1:]] == [frame.position for frame in told[:-1]]


def test_the_streams_are_all_there_and_of_their_kind() -> None:
    [row] = re.findall(r"^\| (`device_snapshot`.*) \| (.*) \|$", PAGE, re.MULTILINE)
    retained, logged = (set(re.findall(r"`(\w+)`", cell)) for cell in row)
    assert retained == {stream.value for stream in RETAINED_STREAMS}
    assert retained | logged == {stream.value for stream in StreamName}


def test_filter_keys_and_options_are_those_of_the_program() -> None:
    assert first_cells(section("Which resources: `filter`")) == set(StreamFilter.model_fields)
    assert first_cells(section("How to be told: `options`")) == set(StreamOptions.model_fields)


def test_the_query_parameters_are_those_of_the_program_and_of_the_document() -> None:
    text = section("Server-Sent Events")
    assert {name for name in parameters() if f"`{name}`" not in text} == set()
    assert {query.name for query in STREAM_QUERY} == parameters()


def test_every_reason_is_told_and_none_that_is_not() -> None:
    told = section("What is told")
    tables = re.findall(r"^\| `reason`.*(?:\n\|.*)+", told, re.MULTILINE)
    reasons = [first_cells(table) - {"reason", "stale"} for table in tables]
    assert reasons == [
        REASONS_OF_GAPS,
        {reason.value for reason in StaleReason},
        {reason.value for reason in EndReason},
    ]
    said = set(
        re.findall(r'"(\w+)"', inspect.getsource(retained_subscription) + inspect.getsource(logged_subscription))
    )
    assert said >= REASONS_OF_GAPS


def test_the_numbers_are_those_of_the_program() -> None:
    listener = ListenerConfig(name="internal", host="127.0.0.1", port=0)
    for number in (
        f"{MAX_SUBSCRIPTIONS} subscriptions",
        f"{logged_subscription.MAX_WAITING_BYTES:,} bytes waiting",
        f"{logged_subscription.EVENT_OVERHEAD} bytes beside its text",
        f"every {subscription.BEAT_S:g} s",
        f"up to {MAX_FILTER_VALUES:,}",
        f"up to {MAX_FIELDS}",
        f"up to {MAX_RATE_HZ:,.0f}",
        f"retry: {RETRY_MS}",
        f"after {listener.websocket_ping_after_s:g} s of silence",
        f"after {listener.websocket_gone_after_s:g} s",
        f"takes nothing for {listener.send_timeout_s:g} s",
    ):
        assert number in PAGE


def test_the_addresses_are_those_of_the_program() -> None:
    assert f"`GET {STREAM_SOCKET_PATH}`" in PAGE
    assert f"`GET {wire_path(EVENT_STREAM_ROUTE)}`" in PAGE
    assert f"`{SUBSCRIBER_SUBPROTOCOL}`" in PAGE
    assert (b"x-accel-buffering", b"no") in HEAD


def test_the_events_of_the_example_are_spelled_in_camel_case() -> None:
    events = [json.loads(line) for line in re.findall(r"^data: (.+)$", PAGE, re.MULTILINE)]
    assert len(events) == 2
    for event in events:
        members = {to_camel(info.alias or name) for name, info in MODELS[event["kind"]].model_fields.items()}
        assert set(event) <= members
    assert re.findall(r"^event: (.+)$", PAGE, re.MULTILINE) == [event["kind"] for event in events]
    assert re.findall(r"^id: (.+)$", PAGE, re.MULTILINE) == [event["position"] for event in events]
