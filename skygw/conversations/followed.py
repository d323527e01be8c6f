"""One command of a socket, told step by step until its end; `unknown` is a step (contract §6)."""

from collections.abc import Callable
from datetime import UTC, datetime

from skygw.control.ledger import ENDS, OUTCOMES, CommandRecord, CommandState, Transition
from skygw.control.live_command import LiveCommand
from skygw.errors import Hop
from skygw.ids import CommandId
from skygw.protocol.codec import encode
from skygw.protocol.commander_frames import CommandResultEvent
from skygw.protocol.json_text import Opaque, read_value
from skygw.telemetry.outlet import SubscriberOutlet


class Followed:
    """A `Speaker`. Steps are read from the record when the socket has room: what waits here is a number."""

    effort = 0

    def __init__(
        self,
        outlet: SubscriberOutlet,
        record: CommandRecord,
        live: LiveCommand | None,
        *,
        is_duplicate: bool,
        when_over: Callable[[], None],
    ) -> None:
        """Of a duplicate it is told where it stands, and what becomes of it then. `when_over` is called once, when the
        last step was taken or nobody wants to hear of it any more.
        """
        self._outlet = outlet
        self._record = record
        self._live = live
        self._is_duplicate = is_duplicate
        self._when_over = when_over
        self._told = max(0, len(self.record.transitions) - 1) if is_duplicate else 0
        self._progress: float | None = None
        self.is_over = False

    @property
    def record(self) -> CommandRecord:
        return self._record if self._live is None else self._live.record

    @property
    def live(self) -> LiveCommand | None:
        return self._live

    def begin(self) -> None:
        if self._live is not None:
            self._live.watchers.add(self._changed)
        self._changed()

    def drop(self) -> None:
        """Nobody hears more of it here."""
        if not self.is_over:
            self.is_over = True
            if self._live is not None:
                self._live.watchers.discard(self._changed)
            self._when_over()

    def _changed(self) -> None:
        self._outlet.ready(self, urgent=True)

    # For the outlet.

    def take(self, now: float) -> str | None:  # noqa: ARG002 - nothing here waits for its time
        record = self.record
        if self.is_over:
            return None
        if self._told < len(record.transitions):
            step = record.transitions[self._told]
            self._told += 1
            is_newest = self._told == len(record.transitions)
            self._progress = record.progress if is_newest else None
            if is_newest and record.state in ENDS:
                self.drop()
            return step_text(record, step, is_newest=is_newest, is_duplicate=self._is_duplicate)
        if record.progress is not None and record.progress != self._progress and record.transitions:
            self._progress = record.progress
            last = record.transitions[-1]
            step = Transition(datetime.now(UTC), last.state, last.hop)
            return step_text(record, step, is_newest=True, is_duplicate=self._is_duplicate)
        return None

    def told(self, count: int) -> None:
        """Nobody counts these."""


def step_text(record: CommandRecord, step: Transition, *, is_newest: bool, is_duplicate: bool = False) -> str:
    """What the node said with its last step goes with that one alone."""
    return encode(
        CommandResultEvent(
            command_id=record.command_id,
            status=step.state,
            outcome=OUTCOMES[step.state],
            duplicate=True if is_duplicate else None,
            progress=record.progress if is_newest else None,
            result=_opaque(record.result) if is_newest else None,
            error=_opaque(record.error) if is_newest else None,
            proof=_opaque(record.proof) if is_newest else None,
            canceled=record.canceled if is_newest else None,
            detail=None if step.detail is None else step.detail[:2_000],
            hop=step.hop,
            at=step.at,
        )
    )


def standing_text(record: CommandRecord, *, is_duplicate: bool = False) -> str:
    """Where a command stands, for whoever does not follow it by this."""
    step = record.transitions[-1] if record.transitions else Transition(record.created_at, record.state, Hop.GATEWAY)
    return step_text(record, step, is_newest=True, is_duplicate=is_duplicate)


def bare_text(command_id: CommandId, state: CommandState, *, canceled: str | None = None) -> str:
    """…of which there is no record here."""
    return encode(
        CommandResultEvent(
            command_id=command_id,
            status=state,
            outcome=OUTCOMES[state],
            canceled=canceled,
            hop=Hop.GATEWAY,
            at=datetime.now(UTC),
        )
    )


def _opaque(text: str | None) -> Opaque | None:
    return None if text is None else Opaque(text, read_value(text))
