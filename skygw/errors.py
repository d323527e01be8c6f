"""What can go wrong, as a closed set of types; each door has one table that turns them into its own codes.

Every error that leaves the gateway says what is wrong, what became of the request (`outcome`), how far it
had got (`reached`), who says so (`hop`) and whether trying again makes sense (`retry`). Contract §3.
"""

from enum import StrEnum
from typing import Any, ClassVar


class Outcome(StrEnum):
    """What became of something that acts on a node."""

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


class Reached(StrEnum):
    """How far a request is known to have come. `WRITTEN` is said only once the writer handed the bytes over."""

    RECEIVED = "received"
    WRITTEN = "written"
    ACCEPTED = "accepted"
    RUNNING = "running"


class Hop(StrEnum):
    """Who says so."""

    GATEWAY = "gateway"
    REPLICA = "replica"
    NODE = "node"


class Retry(StrEnum):
    """What the caller should do next. `AFTER` comes with a number of seconds."""

    NOW = "now"
    AFTER = "after"
    AFTER_AUTH = "after_auth"
    NEVER = "never"
    QUERY_FIRST = "query_first"


class GatewayError(Exception):
    """Base of everything the gateway refuses or fails with. `str(error)` is one sentence for a person."""

    reason: ClassVar[str]
    outcome_unless_told: ClassVar[Outcome] = Outcome.NOT_SENT
    retry_unless_told: ClassVar[Retry] = Retry.NEVER
    retry_when_unknown: ClassVar[Retry] = Retry.QUERY_FIRST

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        reached: Reached | None = None,
        hop: Hop = Hop.GATEWAY,
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.outcome = self.outcome_unless_told if outcome is None else outcome
        self.reached = reached
        self.hop = hop
        self.retry_after_s = retry_after_s
        self.details: dict[str, Any] = details or {}

    @property
    def retry(self) -> Retry:
        """An unknown outcome is asked about before anything is sent again."""
        return self.retry_when_unknown if self.outcome is Outcome.UNKNOWN else self.retry_unless_told


class Invalid(GatewayError):
    """A schema or a limit is broken. `fields` is the list a 422 shows: `{type, loc, msg, input}` each."""

    reason = "invalid"

    def __init__(self, message: str, *, fields: list[dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.fields = fields or []


class TooLarge(Invalid):
    """More bytes than the limit; refused unread."""


class Unauthenticated(GatewayError):
    """No token, or one that does not hold."""

    reason = "unauthenticated"
    retry_unless_told = Retry.AFTER_AUTH


class Forbidden(GatewayError):
    """Known, and not allowed; names the missing scope, network or binding."""

    reason = "forbidden"


class NotFound(GatewayError):
    """Nothing of that name exists for this caller."""

    reason = "not_found"


class NodeOffline(GatewayError):
    """The installation holds no socket here now."""

    reason = "node_offline"
    retry_unless_told = Retry.AFTER


class Busy(GatewayError):
    """The calls or bytes this node may have in flight are used up."""

    reason = "busy"
    retry_unless_told = Retry.AFTER


class DeviceBusy(GatewayError):
    """Another command moves what this one would move; `details` name it."""

    reason = "device_busy"
    retry_unless_told = Retry.AFTER


class IdReused(GatewayError):
    """A command id that already belongs to another command."""

    reason = "id_reused"


class LeaseRequired(GatewayError):
    """This needs the manual control lease, and no lease of this caller's that is for it was shown."""

    reason = "lease_required"


class LeaseHeld(GatewayError):
    """Somebody else has control; `details` say who and until when."""

    reason = "lease_held"
    retry_unless_told = Retry.AFTER


class LeaseExpired(GatewayError):
    """The lease that was shown has ended."""

    reason = "lease_expired"


class StaleFence(GatewayError):
    """The lease that was shown has ended, and control has been given to another since."""

    reason = "stale_fence"


class LocalControl(GatewayError):
    """Somebody at the site has taken control; only safing passes until they give it back."""

    reason = "local_control"
    retry_unless_told = Retry.AFTER


class InterlockActive(GatewayError):
    """A shutdown interlock holds; `details` say which, and why."""

    reason = "interlock_active"
    retry_unless_told = Retry.AFTER


class TaskActive(GatewayError):
    """A task runs there; `details` name it."""

    reason = "task_active"
    retry_unless_told = Retry.AFTER


class ConfigurationChanged(GatewayError):
    """The hardware is not what the caller takes it for; `details` have the revision that is current."""

    reason = "configuration_changed"


class NodeRefused(GatewayError):
    """The node said no and did nothing; `node_code` is its own word (`invalid`, `not_found`, `conflict`, …)."""

    reason = "node_refused"
    outcome_unless_told = Outcome.REFUSED

    def __init__(self, message: str, *, node_code: str, **kwargs: Any) -> None:
        super().__init__(message, **{"hop": Hop.NODE, **kwargs})
        self.node_code = node_code


class NodeFailed(GatewayError):
    """The node tried and failed."""

    reason = "node_failed"
    outcome_unless_told = Outcome.FAILED
    retry_unless_told = Retry.QUERY_FIRST

    def __init__(self, message: str, **kwargs: Any) -> None:
        super().__init__(message, **{"hop": Hop.NODE, **kwargs})


class IllegalTransition(GatewayError):
    """What was asked for cannot become of it in the state it is in."""

    reason = "illegal_transition"


class AssetsIncomplete(GatewayError):
    """Assets are named that were not declared, or are of something else; `details` name them."""

    reason = "assets_incomplete"


class RateLimited(GatewayError):
    """Too many requests in a time window."""

    reason = "rate_limited"
    retry_unless_told = Retry.AFTER


class QuotaExceeded(GatewayError):
    """More bytes than an installation may have under way; `details` say how many it has."""

    reason = "quota_exceeded"


class StorageFull(GatewayError):
    """There is no room for these bytes now."""

    reason = "storage_full"
    retry_unless_told = Retry.AFTER


class StaleEpoch(GatewayError):
    """Said by a superseded session."""

    reason = "stale_epoch"


class BadResponse(GatewayError):
    """The node's answer does not hold together: digest, length or chunk order."""

    reason = "bad_response"
    outcome_unless_told = Outcome.UNKNOWN
    retry_unless_told = Retry.QUERY_FIRST


class Internal(GatewayError):
    """Our fault."""

    reason = "internal"
    outcome_unless_told = Outcome.UNKNOWN
    retry_unless_told = Retry.QUERY_FIRST


class DeadlineExceeded(GatewayError):
    """The caller's time ran out; whether anything was sent is in `outcome`."""

    reason = "deadline_exceeded"
    retry_unless_told = Retry.NOW


class LinkLost(GatewayError):
    """The node's socket ended under the request; whether anything was sent is in `outcome`."""

    reason = "link_lost"
    retry_unless_told = Retry.NOW


class Draining(GatewayError):
    """This process is about to end and takes nothing new but safing."""

    reason = "draining"
    retry_unless_told = Retry.AFTER


class RoutingUnavailable(GatewayError):
    """What is needed to answer (the database) cannot be asked now."""

    reason = "routing_unavailable"
    retry_unless_told = Retry.AFTER


class StoreFailed(RoutingUnavailable):
    """The database answered and refused a statement of ours: a column renamed, a right withdrawn, a value it cannot
    hold. Our fault; yet whoever can do without the database goes on, as when it is away.

    `about_the_data` says that another row might have been taken.
    """

    reason = "internal"
    retry_unless_told = Retry.QUERY_FIRST

    def __init__(self, message: str, *, about_the_data: bool = False, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.about_the_data = about_the_data


class StorageFailed(RoutingUnavailable):
    """Where bytes lie cannot be read or written now: a disk that fails, an object store that is away."""


class StartupError(Exception):
    """The process cannot start: one sentence for stderr, exit code 2, no traceback."""
