"""What one subscriber was told of one stream, message by message, and what it holds of it."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from tests.fleet.telemetry.journal import FleetJournal, Wanted
from tests.fleet.telemetry.spelling import raw_members


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a subscription. `n`, `node` and `is_verbatim` are of its `data`, compared when it came."""

    kind: str
    position: str | None
    prev: str | None
    node: UUID | None = None
    n: int | None = None
    uid: UUID | None = None
    is_verbatim: bool = True
    stale: str | None = None
    reason: str | None = None
    count: int | None = None
    text: str = ""
    """Of what is rare or wrong, whole."""

    @property
    def is_gap(self) -> bool:
        return self.kind == "event_gap"


@dataclass
class Sitting:
    """One subscription from beginning to end. `after` is where it was asked to go on; `run` is the gateway's."""

    run: int
    after: str | None
    messages: list[Message] = field(default_factory=list)

    @property
    def position(self) -> str | None:
        """Where to go on."""
        return next((each.position for each in reversed(self.messages) if each.position is not None), self.after)


class Held(NamedTuple):
    """The last that was told of a resource."""

    node: UUID
    n: int
    stale: str | None


@dataclass
class Story:
    """All sittings. Who does not resume begins each of them anew."""

    name: str
    stream: str
    wanted: Wanted
    journal: FleetJournal
    resumes: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    breaks_lines: bool = False
    """The way it is told breaks lines in its own way: between the members of an object LF is as good as CR LF."""
    sittings: list[Sitting] = field(default_factory=list)
    held: dict[UUID, Held] = field(default_factory=dict)
    told: dict[UUID, int] = field(default_factory=dict)
    """The highest number of each node."""

    @property
    def is_logged(self) -> bool:
        return self.stream in ("telescope_log", "node_event")

    @property
    def event(self) -> str:
        return f"event_{self.stream}"

    def begin(self, run: int) -> dict[str, Any]:
        """The options of the next sitting."""
        after = "earliest" if self.is_logged else None
        if not self.resumes:
            after = None
            self.held.clear()
        elif self.sittings:
            after = self.sittings[-1].position or after
        self.sittings.append(Sitting(run, after))
        return self.options if after is None else {**self.options, "after": after}

    def hear(self, text: str) -> Message:
        """Takes the next message of the sitting. Raises `ValueError` for one that is none."""
        members = raw_members(text)
        read = {name: json.loads(member) for name, member in members.items() if name != "data"}
        message = Message(
            kind=read["kind"],
            position=read.get("position"),
            prev=read.get("prev"),
            stale=read.get("stale"),
            reason=read.get("reason"),
            count=read.get("count"),
        )
        if message.kind == self.event:
            message = self._with_data(message, members["data"], read.get("install_id") or read.get("installId"))
        elif message.kind == "event_stale":
            uid = UUID(read["uid"])
            message = replace(message, uid=uid, stale=read["reason"])
            if uid in self.held:
                self.held[uid] = self.held[uid]._replace(stale=read["reason"])
        elif message.is_gap:
            node = read.get("install_id") or read.get("installId")
            message = replace(message, text=text, node=None if node is None else UUID(node))
        elif message.kind != "event_live":
            message = replace(message, text=text)
        self.sittings[-1].messages.append(message)
        return message

    def _with_data(self, message: Message, text: str, install_id: str | None) -> Message:
        data = json.loads(text)
        said_by, n = UUID(data["node"]), int(data["n"])
        about = data.get("uid") or data.get("device_uid")
        uid = None if about is None else UUID(about)
        node = next((node for node in self.journal if node.install_id == said_by), None)
        sent = None if node is None else node.texts.get(n)
        if self.breaks_lines and sent is not None:
            sent, text = (each.replace("\r\n", "\n") for each in (sent, text))
        self.told[said_by] = max(n, self.told.get(said_by, 0))
        if uid is not None and not self.is_logged:
            self.held[uid] = Held(said_by, n, message.stale)
        message = replace(message, node=said_by, n=n, uid=uid)
        if text == sent and install_id == str(said_by):
            return message
        return replace(message, is_verbatim=False, text=f"{text} instead of {sent}, from {install_id}")

    def is_live(self, run: int) -> bool:
        """It follows this run of the gateway, and what was before has been told."""
        last = self.sittings[-1] if self.sittings else None
        return last is not None and last.run == run and any(each.kind == "event_live" for each in last.messages)

    @property
    def is_complete(self) -> bool:
        """It has been told the last of everything: a bound for waiting, and no verdict."""
        if not self.is_logged:
            latest = self.journal.latest(self.stream, self.wanted)
            return all(
                uid in self.held and self.held[uid].n == n and self.held[uid].stale is None
                for uid, (_, n) in latest.items()
            )
        return all(
            self.told.get(node.install_id, 0) >= max(node.expected(self.stream, self.wanted), default=0)
            for node in self.journal
        )


@dataclass
class PresenceStory(Story):
    """Who is here: of each node the epoch of its session, and the state it is said to be in."""

    present: dict[UUID, tuple[int, str]] = field(default_factory=dict)
    returns: list[str] = field(default_factory=list)
    """Of a session that was over and is said to be there again."""

    def _with_data(self, message: Message, text: str, install_id: str | None) -> Message:
        data = json.loads(text)
        node, said = UUID(data["uid"]), (int(data["epoch"]), str(data["state"]))
        before = self.present.get(node, said)
        if said[1] == "online" and said < (before[0], ""):
            self.returns.append(f"{self.name}: {text} after {before}")
        self.present[node] = said
        return replace(message, node=node, uid=node, is_verbatim=install_id == str(node))

    @property
    def is_complete(self) -> bool:
        return self.absent() == []

    def absent(self) -> list[str]:
        """Who is here with their newest session, and not said to be."""
        return [
            f"{self.name}: {node.install_id} is {self.present.get(node.install_id)}, and was welcomed as {node.epochs}"
            for node in self.journal
            if self.present.get(node.install_id) != (node.epochs[-1], "online")
        ]
