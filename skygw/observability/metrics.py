"""The numbers of one gateway process, their names and labels written down once, as Prometheus reads them.

Every label has a bounded set of values, whatever a peer sends: `kind`, `code` and `status` outside the known ones
are `other`. There is no global registry; two gateways in one process (tests) count apart.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"

Direction = Literal["in", "out"]
Lane = Literal["safing", "safety", "control", "data"]
Door = Literal["websocket", "sse", "commands"]

_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters, gauges and histograms behind methods that say what happened. Cheap; no method raises or blocks.

    `frame_kinds` and `close_codes` are the protocol's: what a label may say. `reason` and `outcome` arguments must come
    from closed sets of our own (`errors`), `route` from the routing table, never from a path. What counts by stream or
    by `snapshot_refusals` is there from the start, at zero: of a counter that appears with its first event, nobody sees
    that event as a rise.
    """

    def __init__(
        self,
        *,
        version: str,
        frame_kinds: Collection[str],
        close_codes: Collection[int],
        streams: Collection[str],
        retained_streams: Collection[str],
        snapshot_refusals: Collection[str],
    ) -> None:
        self._kinds = frozenset(frame_kinds)
        self._codes = frozenset(int(code) for code in close_codes)
        self._retained_streams = tuple(retained_streams)
        registry = CollectorRegistry()
        self._registry = registry
        Info("skygw_build", "What is running", registry=registry).info({"version": version})

        self._counted: defaultdict[tuple[Counter, *tuple[str, ...]], int] = defaultdict(int)
        """What is counted with every frame and request, by counter and labels, until somebody asks: finding a labelled
        counter and adding to it takes locks, and longer than all else that is done about a small frame."""
        self._calling = 0

        self._connections = Gauge("skygw_connections", "TCP connections held now", ["listener"], registry=registry)
        self._connections_refused = Counter(
            "skygw_connections_refused_total",
            "Connections ended by the guard",
            ["listener", "reason"],
            registry=registry,
        )
        self._http_requests = Counter(
            "skygw_http_requests_total", "HTTP requests answered", ["listener", "route", "status"], registry=registry
        )

        self._node_sessions = Gauge("skygw_node_sessions", "Node sockets after their welcome", registry=registry)
        self._node_sessions_ended = Counter(
            "skygw_node_sessions_ended_total", "Node sessions ended, by close code", ["code"], registry=registry
        )
        self._node_refusals = Counter(
            "skygw_node_refusals_total", "Node sockets refused before their welcome", ["reason"], registry=registry
        )
        self._frames = Counter("skygw_frames_total", "Frames on node sockets", ["direction", "kind"], registry=registry)
        self._bytes = Counter("skygw_bytes_total", "Message bytes on node sockets", ["direction"], registry=registry)
        self._queue_bytes = Gauge("skygw_queue_bytes", "Bytes waiting in all outboxes", ["lane"], registry=registry)
        self._late_replies = Counter("skygw_late_replies_total", "Replies nobody waited for", registry=registry)
        self._snapshots_refused = Counter(
            "skygw_snapshots_refused_total", "Snapshots that were not taken", ["reason"], registry=registry
        )
        self._nacks = Counter("skygw_nacks_total", "Reports of nodes that are never taken", ["kind"], registry=registry)
        self._unhandled = Counter("skygw_unhandled_total", "Errors nobody expected: our fault", registry=registry)

        self._calls = Counter("skygw_calls_total", "Direct requests ended", ["outcome", "reason"], registry=registry)
        self._call_seconds = Histogram(
            "skygw_call_seconds", "Direct requests, from door to last byte", registry=registry, buckets=_CALL_SECONDS
        )
        self._calls_in_flight = Gauge("skygw_calls_in_flight", "Direct requests under way", registry=registry)
        self._commands = Counter("skygw_commands_total", "Commands ended", ["outcome"], registry=registry)

        self._subscribers = Gauge("skygw_subscribers", "Stream sockets and answers open", ["door"], registry=registry)
        self._subscriptions = Gauge("skygw_subscriptions", "Subscriptions open", ["stream"], registry=registry)
        self._deliveries = Counter(
            "skygw_deliveries_total", "Messages of subscriptions handed to sockets", ["stream"], registry=registry
        )
        self._conflated = Counter(
            "skygw_conflated_total", "Changes passed over for slow or slowed subscribers", ["stream"], registry=registry
        )
        self._subscriptions_ended = Counter(
            "skygw_subscriptions_ended_total", "Subscriptions ended unasked", ["reason"], registry=registry
        )
        self._log_behind = Gauge(
            "skygw_log_feed_behind",
            "Events the feed found when it last read the log, a page at most",
            registry=registry,
        )
        self._log_lag = Gauge(
            "skygw_log_feed_lag_seconds", "Since the feed last had less than a page to tell", registry=registry
        )
        self._stale = Gauge("skygw_stale_values", "Retained values that are not current", ["stream"], registry=registry)

        for stream in streams:
            self._deliveries.labels(stream)
        for stream in retained_streams:
            self._conflated.labels(stream)
        for reason in snapshot_refusals:
            self._snapshots_refused.labels(reason)

        self._graph_feed_losses = Counter(
            "skygw_graph_feed_losses_total",
            "Times the connection that tells of changed hardware was lost, or not to be had",
            registry=registry,
        )
        self._database_up = Gauge("skygw_database_up", "Whether the database answered last time", registry=registry)

    def connection_opened(self, listener: str) -> None:
        self._connections.labels(listener).inc()

    def connection_closed(self, listener: str) -> None:
        self._connections.labels(listener).dec()

    def connection_refused(self, listener: str, reason: str) -> None:
        self._connections_refused.labels(listener, reason).inc()

    def http_request(self, *, listener: str, route: str, status: int) -> None:
        self._counted[self._http_requests, listener, route, str(status) if 100 <= status <= 599 else OTHER] += 1

    def session_started(self) -> None:
        self._node_sessions.inc()

    def session_ended(self, code: int | None) -> None:
        """`code` as the socket closed with it, from either side; None when it just went away."""
        self._node_sessions.dec()
        known = code is not None and code in self._codes
        self._node_sessions_ended.labels(str(code) if known else OTHER).inc()

    def node_refused(self, reason: str) -> None:
        self._node_refusals.labels(reason).inc()

    def frame(self, direction: Direction, kind: str) -> None:
        self._counted[self._frames, direction, kind if kind in self._kinds else OTHER] += 1

    def message(self, direction: Direction, size: int) -> None:
        """A WebSocket message of `size` bytes, which may hold several frames."""
        self._counted[self._bytes, direction] += size

    def queue_bytes(self, lane: Lane, size: int) -> None:
        """What waits in all outboxes now; measured when somebody asks for the numbers."""
        self._queue_bytes.labels(lane).set(size)

    def late_reply(self) -> None:
        self._late_replies.inc()

    def snapshot_refused(self, reason: str) -> None:
        self._counted[self._snapshots_refused, reason] += 1

    def report_nacked(self, kind: str) -> None:
        self._counted[self._nacks, kind if kind in self._kinds else OTHER] += 1

    def unhandled(self) -> None:
        """Also a statement that the database refused."""
        self._unhandled.inc()

    def call_started(self) -> None:
        self._calling += 1

    def call_ended(self, *, outcome: str, reason: str, seconds: float) -> None:
        """`reason` is empty when nothing was wrong."""
        self._calling -= 1
        self._counted[self._calls, outcome, reason] += 1
        self._call_seconds.observe(seconds)

    def command_ended(self, outcome: str) -> None:
        self._commands.labels(outcome).inc()

    def subscriber_came(self, door: Door) -> None:
        self._subscribers.labels(door).inc()

    def subscriber_left(self, door: Door) -> None:
        self._subscribers.labels(door).dec()

    def delivered(self, stream: str, count: int) -> None:
        self._counted[self._deliveries, stream] += count

    def conflated(self, stream: str, count: int) -> None:
        self._counted[self._conflated, stream] += count

    def subscription_ended(self, reason: str) -> None:
        self._subscriptions_ended.labels(reason).inc()

    def streams(
        self, *, subscriptions: Mapping[str, int], stale: Mapping[str, int], log_behind: int, log_lag_s: float
    ) -> None:
        """How the streams stand now, by their names; measured when somebody asks for the numbers."""
        for stream, count in subscriptions.items():
            self._subscriptions.labels(stream).set(count)
        for stream in self._retained_streams:
            self._stale.labels(stream).set(stale.get(stream, 0))
        self._log_behind.set(log_behind)
        self._log_lag.set(log_lag_s)

    def graph_feed_lost(self) -> None:
        self._graph_feed_losses.inc()

    def database_up(self, up: bool) -> None:
        self._database_up.set(1 if up else 0)

    def render(self) -> bytes:
        """Everything in the Prometheus text format; serve it as `CONTENT_TYPE`."""
        for (counter, *labels), count in self._counted.items():
            counter.labels(*labels).inc(count)
        self._counted.clear()
        self._calls_in_flight.set(self._calling)
        return generate_latest(self._registry)
