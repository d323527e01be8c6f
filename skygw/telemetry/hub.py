"""Where telemetry meets those who want it: takes subscriptions, and tells each of what concerns it."""

import trio

from skygw.errors import Invalid
from skygw.protocol.streams import EARLIEST, RETAINED_STREAMS, StreamName, SubscribeStream
from skygw.telemetry.audience import Audience, Sight, Want
from skygw.telemetry.freshness import Freshness
from skygw.telemetry.instruments import Instruments
from skygw.telemetry.log import EventLog
from skygw.telemetry.log_feed import LogFeed
from skygw.telemetry.logged_subscription import LoggedSubscription
from skygw.telemetry.metrics import UNCOUNTED, StreamMetrics
from skygw.telemetry.outlet import SubscriberOutlet
from skygw.telemetry.positions import Versions, read_position
from skygw.telemetry.presence import Presence
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.retained_subscription import RetainedSubscription
from skygw.telemetry.sessions import Goodbye, Session
from skygw.telemetry.subscription import Subscription
from skygw.telemetry.value import Listener, Value


class StreamHub:
    """One per process. Told of sessions too: who is away says nothing, and that has to be heard. `heartbeat_s` is how
    often a node that is here gives a sign of life.
    """

    def __init__(
        self, *, era: int, log: EventLog, heartbeat_s: float = 10.0, metrics: StreamMetrics = UNCOUNTED
    ) -> None:
        self.versions = Versions(era)
        self.retained = RetainedValues(self.versions, changed=self._changed, unchanged=self._unchanged)
        self.feed = LogFeed(log)
        self.log = log
        self._metrics = metrics
        self._audiences: dict[StreamName, Audience[RetainedSubscription]] = {
            stream: Audience() for stream in RETAINED_STREAMS
        }
        self.instruments = Instruments(self.retained, self._audiences[StreamName.INSTRUMENT_SNAPSHOT])
        self.presence = Presence(self.retained, heartbeat_s=heartbeat_s)
        self.freshness = Freshness(self.retained, is_here=self.presence.is_here)
        self._watchers: list[Listener] = [self.freshness, self.instruments]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; has started when it follows the log."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.feed.run)
            nursery.start_soon(self.freshness.run)
            nursery.start_soon(self.presence.run)
            nursery.start_soon(self.instruments.run)
            task_status.started()

    def session_began(self, session: Session) -> None:
        """Comes before anything the node says by it. Never waits."""
        self.presence.session_began(session)
        self.freshness.session_began(session)
        self.instruments.know(session.binding)

    def session_ended(self, session: Session, goodbye: Goodbye) -> None:
        """May come after a newer one of the same node has begun. Never waits."""
        self.presence.session_ended(session, goodbye)
        self.freshness.session_ended(session)

    def watch(self, watcher: Listener) -> None:
        """It is told of every value, before subscribers are."""
        self._watchers.append(watcher)

    def subscribe(
        self, outlet: SubscriberOutlet, asked: SubscribeStream, *, sight: Sight | None = None
    ) -> Subscription:
        """Adds a subscription to this outlet, which tells from now on. Never waits.

        A `LoggedSubscription` has to be run by whoever runs the outlet. Raises `Invalid` for a filter or options that
        do not hold, `Busy` when the outlet has enough.
        """
        wanted, options = asked.asked_filter(), asked.asked_options()
        outlet.check_room(asked.subscription_id)
        after = None if options.after is None else read_position(asked.stream, options.after)
        want = Want(wanted, sight)
        if asked.stream in RETAINED_STREAMS:
            subscription = RetainedSubscription(
                asked.subscription_id, asked.stream, want, outlet, options=options, versions=self.versions
            )
            subscription.metrics = self._metrics
            if asked.stream is StreamName.INSTRUMENT_SNAPSHOT:
                self.instruments.catch_up(want)
            audience = self._audiences[asked.stream]
            audience.add(subscription, want)
            subscription.left = lambda: audience.remove(subscription)
            wants_existing = options.include_existing or after is not None
            subscription.begin(self.retained.matching(asked.stream, want) if wants_existing else (), after=after)
            outlet.add(subscription)
            return subscription
        for name, given in (
            ("filter.device_type", wanted.device_type),
            ("options.max_rate_hz", options.max_rate_hz),
            ("options.fields", options.fields),
        ):
            if given is not None:
                raise Invalid(f"{name} is for retained streams: events of {asked.stream.value} are told whole, each.")
        if after is not None and after > self.feed.head:
            raise Invalid(f"options.after: {options.after} is beyond the end of this log; it is of another one.")
        logged = LoggedSubscription(
            asked.subscription_id, asked.stream, want, outlet, after=self.feed.head if after is None else after
        )
        logged.metrics = self._metrics
        if options.after != EARLIEST:
            logged.prev = options.after
        self.feed.listen(logged)
        outlet.add(logged)
        return logged

    def subscriptions(self) -> dict[str, int]:
        """How many there are of each stream now."""
        return {stream.value: len(audience) for stream, audience in self._audiences.items()} | self.feed.subscriptions()

    def _changed(self, value: Value) -> None:
        for watcher in self._watchers:
            watcher.changed(value)
        if value.generation != self._audiences[value.stream].generation:
            self._find_listeners(value)
        for listener in value.listeners:
            listener.changed(value)

    def _unchanged(self, value: Value) -> None:
        for watcher in self._watchers:
            watcher.unchanged(value)
        if value.generation != self._audiences[value.stream].generation:
            self._find_listeners(value)
        for listener in value.listeners:
            listener.unchanged(value)

    def _find_listeners(self, value: Value) -> None:
        audience = self._audiences[value.stream]
        value.listeners = audience.of(value)
        value.generation = audience.generation
