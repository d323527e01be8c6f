"""A stream as Server-Sent Events, on a real listener: what an EventSource hears, and that nothing is left of it."""

import json
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.protocol.streams import RETAINED_STREAMS, StaleReason, StreamName
from skygw.routers.event_streams import RETRY_MS, SERVER_SENT
from skygw.serving import End
from skygw.telemetry import logged_subscription, subscription
from tests.routers.stream_doors import stream_doors
from tests.serving.served import PATIENCE_S

DEVICES = "/internal/streams/device_snapshot"
LOGS = "/internal/streams/telescope_log"


async def test_what_there_is_comes_first_then_the_sign_that_it_was_all_then_changes() -> None:
    async with stream_doors() as doors, doors.source() as source:
        mount = doors.device()
        doors.publish(mount, ra=1)
        await source.ask(DEVICES)
        assert source.status == 200
        assert source.headers["content-type"] == "text/event-stream"
        assert source.headers["cache-control"] == "no-store"
        assert source.headers["x-accel-buffering"] == "no"
        value, live = await source.hear_kinds("event_device_snapshot", "event_live")
        assert source.retry_ms == RETRY_MS
        assert value["data"] == {"uid": str(mount.uid), "ra": 1}
        assert {"subscriptionId", "installId", "observedAt", "receivedAt", "position", "prev"} <= set(value)
        assert live["prev"] == value["position"]
        doors.publish(mount, ra=2)
        [change] = await source.hear_kinds("event_device_snapshot")
        assert change["data"]["ra"] == 2
        assert (change["prev"], change["position"]) == (live["position"], source.last_event_id)


@pytest.mark.parametrize("stream", StreamName)
async def test_every_stream_can_be_read(stream: StreamName) -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(f"/internal/streams/{stream.value}/")
        [live] = await source.hear_kinds("event_live")
        assert live["position"].startswith("s" if stream in RETAINED_STREAMS else "l")
        assert doors.subscribers_of(stream) == 1


async def test_an_event_of_a_log_comes_once_and_in_order_and_can_be_resumed() -> None:
    async with stream_doors() as doors:
        for number in range(3):
            doors.happen(f'{{"n":{number}}}')
        await doors.until_fed()
        async with doors.source() as source:
            await source.ask(f"{LOGS}?after=earliest")
            events = await source.hear_kinds(*["event_telescope_log"] * 3, "event_live")
            assert [event["data"]["n"] for event in events[:3]] == [0, 1, 2]
            doors.happen('{"n":3}')
            await source.hear_kinds("event_telescope_log")
            place = source.last_event_id
        doors.happen('{"n":4}')
        async with doors.source() as again:
            await again.ask(f"{LOGS}?after=earliest", Last_Event_ID=place)
            event, _ = await again.hear_kinds("event_telescope_log", "event_live")
            assert (event["data"]["n"], event["prev"]) == (4, place)


async def test_a_reader_that_comes_back_to_retained_values_is_told_of_a_gap_and_the_newest() -> None:
    async with stream_doors() as doors:
        mount, camera = doors.device(), doors.device(device_type="camera")
        doors.publish(mount, n=1)
        doors.publish(camera, n=1)
        async with doors.source() as source:
            await source.ask(DEVICES)
            await source.hear_kinds("event_device_snapshot", "event_device_snapshot", "event_live")
            place = source.last_event_id
        doors.publish(mount, n=2)
        doors.publish(mount, n=3)
        async with doors.source() as again:
            await again.ask(DEVICES, Last_Event_ID=place)
            gap, value, _ = await again.hear_kinds("event_gap", "event_device_snapshot", "event_live")
            assert (gap["reason"], gap["from"]) == ("resumed", place)
            assert (value["data"]["uid"], value["data"]["n"]) == (str(mount.uid), 3)


async def test_filters_are_lists_with_commas_or_repeated_and_options_are_camel_case() -> None:
    async with stream_doors() as doors, doors.source() as source:
        elsewhere = uuid4()
        mount, camera, dome = (doors.device(device_type=kind) for kind in ("mount", "camera", "dome"))
        far = doors.device(telescope_uid=elsewhere)
        for device in (mount, camera, dome, far):
            doors.publish(device, n=1, m=2)
        asked = (
            f"deviceType=mount,camera&deviceType=dome&telescopeUid={doors.telescope_uid}&fields=m&includeUnchanged=true"
        )
        await source.ask(f"{DEVICES}?{asked}")
        values = await source.hear_kinds(*["event_device_snapshot"] * 3, "event_live")
        assert [value["data"] for value in values[:3]] == [
            {"uid": str(device.uid), "m": 2} for device in (mount, camera, dome)
        ]
        doors.publish(far, n=3)
        doors.publish(mount, n=1, m=2)  # said again with the same bytes
        [again] = await source.hear_kinds("event_device_snapshot")
        assert again["data"]["uid"] == str(mount.uid)


async def test_without_the_existing_only_changes_come_and_a_rate_holds_them_back() -> None:
    async with stream_doors() as doors, doors.source() as source:
        mount = doors.device()
        doors.publish(mount, n=1)
        await source.ask(
            f"{DEVICES}?includeExisting=false&maxRateHz=5&installId={doors.install_id}&deviceUid={mount.uid}"
        )
        await source.hear_kinds("event_live")
        for number in range(2, 6):
            doors.publish(mount, n=number)
            await trio.testing.wait_all_tasks_blocked(0.005)
        first, gap, last = await source.hear_kinds("event_device_snapshot", "event_gap", "event_device_snapshot")
        assert (first["data"]["n"], last["data"]["n"]) == (2, 5)
        assert (gap["reason"], gap["count"]) == ("conflated", 2)
        assert doors.counts.passed_over["device_snapshot"] == 2


async def test_a_value_that_is_no_longer_current_is_said_to_be() -> None:
    async with stream_doors() as doors, doors.source() as source:
        mount = doors.device()
        doors.publish(mount, n=1)
        await source.ask(DEVICES)
        await source.hear_kinds("event_device_snapshot", "event_live")
        value = doors.hub.retained.find(StreamName.DEVICE_SNAPSHOT, mount.uid)
        assert value is not None
        doors.hub.retained.mark_stale(value, StaleReason.SILENT)
        [stale] = await source.hear_kinds("event_stale")
        assert (stale["uid"], stale["reason"]) == (str(mount.uid), "silent")
        assert "lastObservedAt" in stale


async def test_beats_come_while_nothing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "BEAT_S", 0.05)
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(DEVICES)
        first, second, third = await source.hear_kinds("event_live", "event_live", "event_live")
        assert first["position"] == second["prev"] == third["prev"]


async def test_data_with_line_breaks_is_split_over_lines_and_means_the_same() -> None:
    data = '{"uid": "x",\r\n "a":\r1,\n "b": "\\n"}'
    assert (
        SERVER_SENT._framed("k", "s1", data)
        == 'event: k\nid: s1\ndata: {"uid": "x",\ndata:  "a":\ndata: 1,\ndata:  "b": "\\n"}\n\n'
    )
    async with stream_doors() as doors, doors.source() as source:
        mount = doors.device()
        doors.hub.retained.say(StreamName.DEVICE_SNAPSHOT, mount, data, order=(1, 1))
        await source.ask(DEVICES)
        [value] = await source.hear_kinds("event_device_snapshot")
        assert value["data"] == json.loads(data)


# Who may, and what is refused.


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/internal/streams/weather", 404, "device_snapshot"),
        (f"{DEVICES}?device_type=mount", 422, "deviceType"),
        (f"{DEVICES}?deviceUid=mount", 422, "deviceUid"),
        (f"{DEVICES}?maxRateHz=0", 422, "maxRateHz"),
        (f"{DEVICES}?maxRateHz=inf", 422, "maxRateHz"),
        (f"{DEVICES}?includeExisting=perhaps", 422, "includeExisting"),
        (f"{DEVICES}?after=s1&after=s2", 422, "twice"),
        (f"{DEVICES}?after=l1", 422, "no position"),
        (f"{DEVICES}?after=earliest", 422, "no position"),
        (f"{LOGS}?after=l77", 422, "beyond"),
        (f"{LOGS}?fields=a", 422, "retained"),
        (f"{LOGS}?after=%ff", 422, "no text"),
        (f"{LOGS}?after=%00", 422, "no text"),
    ],
)
async def test_what_cannot_be_told_is_refused_with_a_sentence(path: str, status: int, word: str) -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(path)
        assert source.status == status
        assert word in json.dumps(await source.body())
        assert not any(doors.hub.subscriptions().values())


async def test_a_refused_parameter_is_named_as_it_was_asked() -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(f"{DEVICES}?deviceUid={uuid4()},mount")
        [field] = (await source.body())["detail"]
        assert field["loc"] == ["query", "deviceUid", 1]


async def test_a_missing_scope_is_403_and_named_and_no_token_is_401() -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(DEVICES, token="poor")
        assert (source.status, (await source.body())["details"]) == (403, {"missingScopes": ["streams:read"]})
        await source.ask(DEVICES, token="stolen")
        assert (source.status, (await source.body())["code"]) == (401, "unauthenticated")
        assert [status for _, status in doors.statuses] == [403, 401]


async def test_two_positions_are_one_too_many() -> None:
    async with stream_doors() as doors, doors.served.peer() as peer:
        await peer.send(
            f"GET {DEVICES} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer reader\r\n"
            "Last-Event-ID: s1\r\nLast-Event-ID: s2\r\n\r\n".encode()
        )
        assert (await peer.response())[0] == 422


async def test_a_filter_without_values_fits_nothing_and_is_204() -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(f"{DEVICES}?deviceUid=")
        assert source.status == 204
        await source.ask(f"{DEVICES}?deviceUid=,")
        assert source.status == 204
        await doors.until_nobody_listens()


async def test_head_has_the_head_of_the_answer_and_other_methods_are_405() -> None:
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(DEVICES, method="HEAD")
        assert (source.status, source.headers["content-type"]) == (200, "text/event-stream")
        await source.ask("/internal/streams/weather", method="HEAD")
        assert source.status == 404
        await source.ask(DEVICES, method="POST", Content_Length="0")
        assert (source.status, source.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "GET" in json.dumps(await source.body())
        await source.ask(DEVICES, method="OPTIONS")
        assert (source.status, source.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
        await doors.until_nobody_listens()


# How it ends.


@pytest.mark.parametrize("path", [DEVICES, LOGS])
async def test_nothing_is_left_of_a_caller_that_has_gone(path: str) -> None:
    async with stream_doors() as doors:
        async with doors.source() as source:
            await source.ask(path)
            await source.hear_kinds("event_live")
            assert doors.counts.open["sse"] == 1
        await doors.until_nobody_listens()
        assert doors.counts.open["sse"] == 0


async def test_a_caller_that_goes_while_the_log_is_away_leaves_nothing_either() -> None:
    async with stream_doors() as doors:
        doors.log.away = True
        async with doors.source() as source:
            await source.ask(LOGS)
            assert source.status == 200
            assert doors.subscribers_of(StreamName.TELESCOPE_LOG) == 1
        await doors.until_nobody_listens()


async def test_the_answer_ends_cleanly_when_the_token_does() -> None:
    async with stream_doors() as doors, doors.source() as source:
        doors.tokens.enter("short", lasts_s=0.3)
        await source.ask(DEVICES, token="short")
        assert await source.hear_the_end() == ["event_live"]
        assert source.ended_cleanly
        assert any("token" in comment for comment in source.comments)
        await doors.until_nobody_listens()


async def test_a_token_ends_a_stream_that_never_rests_as_well() -> None:
    async with stream_doors() as doors, doors.source() as source, trio.open_nursery() as nursery:
        mount = doors.device()

        async def never_rest() -> None:
            number = 0
            while True:
                number += 1
                doors.publish(mount, n=number)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(never_rest)
        doors.tokens.enter("short", lasts_s=0.3)
        await source.ask(DEVICES, token="short")
        heard = await source.hear_the_end()
        assert source.ended_cleanly
        assert "event_device_snapshot" in heard
        nursery.cancel_scope.cancel()


async def test_a_subscription_that_ended_ends_the_answer_with_its_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_subscription, "MAX_WAITING_BYTES", 4_000)
    async with stream_doors() as doors, doors.source() as source:
        await source.ask(LOGS)
        await source.hear_kinds("event_live")
        doors.happen('{"m":"' + "x" * 500 + '"}', times=20)  # in one page, so that no reader could keep up
        heard = await source.hear_the_end()
        assert heard[-1] == "event_subscription_ended"
        assert source.ended_cleanly
        assert doors.counts.ended == {"slow_consumer": 1}
        await doors.until_nobody_listens()


async def test_a_caller_that_does_not_read_is_cut_and_others_go_on() -> None:
    async with stream_doors(send_timeout_s=0.5) as doors, doors.source(receive_buffer=4_096) as deaf:
        await deaf.ask(DEVICES)
        async with doors.source() as source:
            await source.ask(DEVICES)
            await source.hear_kinds("event_live")
            devices = [doors.device() for _ in range(400)]
            with trio.fail_after(PATIENCE_S):
                round_ = 0
                while doors.served.metrics.closed_by[End.NOT_READING] == 0:
                    round_ += 1
                    for device in devices:
                        doors.publish(device, n=round_, padding="x" * 1_000)
                    told = await source.hear()
                    assert told[0] in {"event_device_snapshot", "event_gap"}
            assert doors.subscribers_of(StreamName.DEVICE_SNAPSHOT) == 1
        await doors.until_nobody_listens()
