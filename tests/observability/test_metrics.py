"""Numbers are told apart by bounded labels and read in the text format Prometheus scrapes."""

from prometheus_client.parser import text_string_to_metric_families

from skygw.observability.metrics import CONTENT_TYPE, Metrics


def fresh() -> Metrics:
    return Metrics(
        version="1.2.3",
        frame_kinds=["hello", "pong", "publish_log"],
        close_codes=[1000, 4001],
        streams=["device_snapshot", "asset"],
        retained_streams=["device_snapshot"],
        snapshot_refusals=["not_found"],
    )


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_it_is_the_prometheus_text_format_and_says_what_is_running() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert samples(fresh())["skygw_build_info", ("1.2.3",)] == 1


def test_connections_go_up_and_down_by_listener() -> None:
    metrics = fresh()
    metrics.connection_opened("node")
    metrics.connection_opened("node")
    metrics.connection_closed("node")
    metrics.connection_refused("internal", "h2c")
    read = samples(metrics)
    assert read["skygw_connections", ("node",)] == 1
    assert read["skygw_connections_refused_total", ("internal", "h2c")] == 1


def test_a_session_that_ends_counts_under_its_code() -> None:
    metrics = fresh()
    for code in (1000, 4001, 4999, None):
        metrics.session_started()
        metrics.session_ended(code)
    metrics.session_started()
    read = samples(metrics)
    assert read["skygw_node_sessions", ()] == 1
    assert read["skygw_node_sessions_ended_total", ("4001",)] == 1
    assert read["skygw_node_sessions_ended_total", ("other",)] == 2


def test_a_peer_cannot_make_label_values_up() -> None:
    metrics = fresh()
    for number in range(100):
        metrics.frame("in", f"kind{number}")
        metrics.session_ended(3000 + number)
        metrics.http_request(listener="node", route="/v1/nodes/me", status=1000 + number)
    metrics.frame("in", "hello")
    read = samples(metrics)
    assert read["skygw_frames_total", ("in", "other")] == 100
    assert read["skygw_frames_total", ("in", "hello")] == 1
    assert read["skygw_node_sessions_ended_total", ("other",)] == 100
    assert read["skygw_http_requests_total", ("node", "/v1/nodes/me", "other")] == 100


def test_a_call_is_in_flight_until_it_ends_with_its_outcome() -> None:
    metrics = fresh()
    metrics.call_started()
    metrics.call_started()
    metrics.call_ended(outcome="unknown", reason="link_lost", seconds=0.3)
    read = samples(metrics)
    assert read["skygw_calls_in_flight", ()] == 1
    assert read["skygw_calls_total", ("unknown", "link_lost")] == 1
    assert read["skygw_call_seconds_count", ()] == 1
    assert read["skygw_call_seconds_sum", ()] == 0.3


def test_queues_bytes_and_the_rest_are_counted() -> None:
    metrics = fresh()
    metrics.queue_bytes("safing", 500)
    metrics.queue_bytes("safing", 300)
    metrics.message("out", 1024)
    metrics.late_reply()
    metrics.unhandled()
    metrics.node_refused("forbidden")
    metrics.command_ended("succeeded")
    metrics.database_up(True)
    read = samples(metrics)
    assert read["skygw_queue_bytes", ("safing",)] == 300
    assert read["skygw_bytes_total", ("out",)] == 1024
    assert read["skygw_late_replies_total", ()] == 1
    assert read["skygw_unhandled_total", ()] == 1
    assert read["skygw_node_refusals_total", ("forbidden",)] == 1
    assert read["skygw_commands_total", ("succeeded",)] == 1
    assert read["skygw_database_up", ()] == 1
    metrics.database_up(False)
    assert samples(metrics)["skygw_database_up", ()] == 0


def test_two_gateways_in_one_process_count_apart() -> None:
    one, other = fresh(), fresh()
    one.late_reply()
    assert samples(other)["skygw_late_replies_total", ()] == 0


def test_what_is_our_fault_and_what_is_not_held_are_counted() -> None:
    metrics = fresh()
    metrics.unhandled()
    metrics.snapshot_refused("not_found")
    metrics.report_nacked("publish_log")
    metrics.report_nacked("publish_rumour")
    read = samples(metrics)
    assert (read["skygw_unhandled_total", ()], read["skygw_snapshots_refused_total", ("not_found",)]) == (1, 1)
    assert (read["skygw_nacks_total", ("publish_log",)], read["skygw_nacks_total", ("other",)]) == (1, 1)


def test_what_counts_by_stream_or_refusal_is_zero_before_anything_happens() -> None:
    read = samples(fresh())
    assert read["skygw_snapshots_refused_total", ("not_found",)] == 0
    assert read["skygw_conflated_total", ("device_snapshot",)] == 0
    assert (read["skygw_deliveries_total", ("device_snapshot",)], read["skygw_deliveries_total", ("asset",)]) == (0, 0)


def test_only_of_retained_streams_something_can_be_stale_or_passed_over() -> None:
    metrics = fresh()
    metrics.streams(subscriptions={"device_snapshot": 0, "asset": 3}, stale={}, log_behind=0, log_lag_s=0.0)
    read = samples(metrics)
    assert {labels for name, labels in read if name == "skygw_stale_values"} == {("device_snapshot",)}
    assert {labels for name, labels in read if name == "skygw_conflated_total"} == {("device_snapshot",)}


def test_streams_are_counted_as_they_are_told_and_measured_as_they_stand() -> None:
    metrics = fresh()
    metrics.subscriber_came("websocket")
    metrics.subscriber_came("sse")
    metrics.subscriber_left("sse")
    metrics.delivered("device_snapshot", 3)
    metrics.delivered("device_snapshot", 2)
    metrics.conflated("device_snapshot", 7)
    metrics.subscription_ended("slow_consumer")
    metrics.streams(
        subscriptions={"device_snapshot": 2, "asset": 0}, stale={"device_snapshot": 1}, log_behind=12, log_lag_s=0.5
    )
    read = samples(metrics)
    assert read["skygw_subscribers", ("websocket",)] == 1
    assert read["skygw_subscribers", ("sse",)] == 0
    assert read["skygw_deliveries_total", ("device_snapshot",)] == 5
    assert read["skygw_conflated_total", ("device_snapshot",)] == 7
    assert read["skygw_subscriptions_ended_total", ("slow_consumer",)] == 1
    assert read["skygw_subscriptions", ("device_snapshot",)] == 2
    assert read["skygw_stale_values", ("device_snapshot",)] == 1
    metrics.streams(subscriptions={"device_snapshot": 1, "asset": 0}, stale={}, log_behind=0, log_lag_s=0.0)
    read = samples(metrics)
    assert (read["skygw_subscriptions", ("device_snapshot",)], read["skygw_stale_values", ("device_snapshot",)]) == (
        1,
        0,
    )
    assert (read["skygw_log_feed_behind", ()], read["skygw_log_feed_lag_seconds", ()]) == (0, 0)
