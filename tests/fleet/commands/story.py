"""What the callers asked for and were told, with the times of this machine; written as it happens."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

ENDS = frozenset({"completed", "failed", "rejected", "canceled", "expired"})
UNSETTLED = frozenset({"unknown", "received"})
"""`received` is what a gateway that was killed had not sent, or had not written down that it had."""
SENT = frozenset({"written", "accepted", "running", "completed"})
"""States that say that a command left the gateway."""


class Fence(NamedTuple):
    """The lease a command was asked under."""

    uid: str
    number: int


class Answer(NamedTuple):
    """`what` is `post`, `get` or `cancel`. Without a status no answer came: nothing is known by it."""

    at: datetime
    what: str
    status: int | None
    body: dict[str, Any]

    @property
    def state(self) -> str | None:
        """What it says of the command, if it says anything."""
        return self.body.get("state")


@dataclass
class Ask:
    """One command, however often it was asked for and by whom."""

    command_id: str
    device_uid: str
    command: dict[str, Any]
    fence: Fence | None
    """None for a stop."""
    deadline_at: datetime | None = None
    """The latest one of its askings."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def command_type(self) -> str:
        return str(self.command["command_type"])

    @property
    def is_stop(self) -> bool:
        return self.command_type.endswith(".stop")

    @property
    def final(self) -> dict[str, Any]:
        """What the gateway says last; empty if it knows of no such command."""
        last = self.answers[-1]
        return last.body if last.what == "get" and last.status == 200 else {}

    @property
    def goes_on(self) -> bool:
        """Whether its last word is not an end."""
        return bool(self.final) and self.final["state"] not in ENDS

    @property
    def is_unsettled(self) -> bool:
        """Whether it may stay as it is for ever."""
        return self.final.get("state") in UNSETTLED

    @property
    def may_have_gone(self) -> bool:
        """Whether any asking was answered as taken, or with doubt, or not at all."""
        return any(
            answer.status is None or answer.status in (200, 202) or answer.body.get("outcome") != "not_sent"
            for answer in self.answers
            if answer.what == "post"
        )

    @property
    def told_so_far(self) -> str:
        """For whoever looks into it."""
        said = [
            (f"{answer.at:%H:%M:%S.%f}", answer.what, answer.status, answer.state, answer.body.get("receipt"))
            for answer in self.answers
        ]
        return f"{self.command_type} until {self.deadline_at}: {said}"

    def told(self, what: str, status: int | None, body: dict[str, Any]) -> None:
        self.answers.append(Answer(datetime.now(UTC), what, status, body))


class Trouble(NamedTuple):
    """What was done to whom. `site` is None for the gateway and its database, which are everybody's."""

    at: datetime
    what: str
    site: int | None


@dataclass
class Story:
    """Of one run."""

    asks: dict[str, Ask] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    site_of: dict[str, int] = field(default_factory=dict)
    """The site of each device."""
    leases: int = 0
    broken: int = 0

    def ask(self, ask: Ask) -> Ask:
        self.asks[ask.command_id] = ask
        return ask

    def trouble(self, what: str, site: int | None) -> None:
        self.troubles.append(Trouble(datetime.now(UTC), what, site))
