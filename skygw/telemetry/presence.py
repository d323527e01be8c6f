"""The stream `node_presence`: who is here, who is not, and of whom it is not known, in the order of epochs."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf
from typing import Any

import trio

from skygw.ids import InstallId
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.json_text import compact, read_value
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.audience import Want
from skygw.telemetry.freshness import next_look
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.sessions import Bound, Goodbye, Session
from skygw.telemetry.value import utc

RETURN_GRACE_S = 30.0
"""How long a gateway that has begun waits for those who were here before it says that they are not. Nodes come back
within about 20 s."""

DOUBT_AFTER_BEATS = 1.5
"""A node that is alive says something at least once per heartbeat. One that is silent longer than this may be gone."""

LOOK_EVERY_S = 1.0


class PresenceState(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    UNCERTAIN = "uncertain"
    """It may be here: it was, and nothing is known to have ended it."""


SILENT = "silent"
"""Nothing has come for a while; the session is not given up yet."""
GATEWAY_RESTARTED = "gateway_restarted"
DID_NOT_RETURN = "did not come back after the gateway restarted"


def installation_resource(binding: Bound) -> Resource:
    """What presence is about. It is a telescope's if the installation is."""
    telescopes = tuple(binding.telescopes)
    return Resource(
        binding.install_id,
        ResourceKind.INSTALLATION,
        binding.install_id,
        binding.observatory_uid,
        telescopes[0] if len(telescopes) == 1 else None,
    )


class _Here:
    """An installation with a session."""

    __slots__ = ("resource", "session", "state", "step")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.resource = installation_resource(session.binding)
        self.state = PresenceState.ONLINE
        self.step = 0


class Presence:
    """One value per installation that was ever here. An order of (epoch, step) keeps a late goodbye in its place.

    `since` is when the state began, `last_seen` when something was last heard of the node, both by this host's clock
    and as of the change: whoever wants it up to the second asks `GET /internal/nodes/{id}`.
    """

    def __init__(self, retained: RetainedValues, *, heartbeat_s: float) -> None:
        self._retained = retained
        self._doubt_after_s = DOUBT_AFTER_BEATS * heartbeat_s
        self._here: dict[InstallId, _Here] = {}
        self._awaited: dict[InstallId, Mapping[str, Any]] = {}
        self._awaited_until = inf

    def is_here(self, install_id: InstallId) -> bool:
        return install_id in self._here

    def session_began(self, session: Session) -> None:
        install_id = session.binding.install_id
        here = self._here[install_id] = _Here(session)
        self._awaited.pop(install_id, None)
        self._tell(here, PresenceState.ONLINE)

    def session_ended(self, session: Session, goodbye: Goodbye) -> None:
        """Of a session that was superseded nothing is told: its node is here. One that this gateway ends because it
        ends itself does not make the node offline: it will come to the next one.
        """
        install_id = session.binding.install_id
        here = self._here.get(install_id)
        if here is None or here.session is not session:
            return
        del self._here[install_id]
        is_ours = not goodbye.by_node and goodbye.code in (None, CloseCode.DRAINING)
        state = PresenceState.UNCERTAIN if is_ours else PresenceState.OFFLINE
        self._tell(here, state, code=goodbye.code, reason=goodbye.reason)

    def resume(self) -> None:
        """After the values of before have been restored: who was here is awaited, who was away still is."""
        self._awaited_until = trio.current_time() + RETURN_GRACE_S
        for value in self._retained.matching(StreamName.NODE_PRESENCE, Want(StreamFilter())):
            said = read_value(value.data)
            if said.get("state") != PresenceState.OFFLINE:
                self._awaited[value.install_id] = said
                said = _another(said, PresenceState.UNCERTAIN, reason=GATEWAY_RESTARTED)
            self._say_restored(value.resource, said, order=value.order)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await next_look(LOOK_EVERY_S)
            now = trio.current_time()
            for here in list(self._here.values()):
                is_silent = now - here.session.last_received_at > self._doubt_after_s
                if is_silent != (here.state is PresenceState.UNCERTAIN):
                    if is_silent:
                        self._tell(here, PresenceState.UNCERTAIN, reason=SILENT)
                    else:
                        self._tell(here, PresenceState.ONLINE)
            if self._awaited and now >= self._awaited_until:
                self._give_up()

    def _give_up(self) -> None:
        awaited, self._awaited = self._awaited, {}
        for install_id, said in awaited.items():
            value = self._retained.find(StreamName.NODE_PRESENCE, install_id)
            if value is not None:
                offline = _another(said, PresenceState.OFFLINE, reason=DID_NOT_RETURN)
                self._say_restored(value.resource, offline, order=value.order)

    def _tell(self, here: _Here, state: PresenceState, **why: object) -> None:
        session = here.session
        here.state = state
        now = datetime.now(UTC)
        silent_for = timedelta(seconds=trio.current_time() - session.last_received_at)
        said = {
            "uid": str(here.resource.uid),
            "name": session.binding.name,
            "state": state,
            "epoch": session.epoch,
            "since": utc(now),
            "last_seen": utc(now - silent_for),
            "address": session.address,
            "software_version": session.hello.software_version,
            **{key: value for key, value in why.items() if value is not None},
        }
        self._retained.say(
            StreamName.NODE_PRESENCE, here.resource, compact.encode(said), order=(session.epoch, here.step)
        )
        here.step += 1

    def _say_restored(self, resource: Resource, said: Mapping[str, Any], *, order: tuple[int, int]) -> None:
        epoch, step = order
        self._retained.say(StreamName.NODE_PRESENCE, resource, compact.encode(said), order=(epoch, step + 1))


def _another(said: Mapping[str, Any], state: PresenceState, *, reason: str) -> dict[str, Any]:
    """The same installation in another state, from now on."""
    rest = {key: value for key, value in said.items() if key != "code"}
    return {**rest, "state": state, "since": utc(datetime.now(UTC)), "reason": reason}
