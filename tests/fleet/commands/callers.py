"""Services that want the same telescopes: they take leases and break each other's, command, repeat, cancel and stop."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import trio

from skygw.sim.blueprint import SiteBlueprint
from tests.fakes.http_connection import BrokenOff, http_connection
from tests.fleet.commands.story import Ask, Fence, Story
from tests.fleet.telemetry.hub import Hub

TIMEOUTS_S = (1.0, 5.0)
LEASES_S = (1.5, 4.0)
STOPPABLE = frozenset({"mount", "focuser", "enclosure"})
PAUSES_S = (0.02, 0.3)
ANSWER_WITHIN_S = 12.0
NOBODY_THERE_S = 0.5
"""After a gateway that does not answer."""
LOOK_S = 0.5
"""Between two looks at what is not settled yet."""


@dataclass(frozen=True)
class Place:
    """What a lease is for, and what may be commanded under it: a device and how its commands are drawn."""

    lease: dict[str, str]
    uid: str
    devices: Sequence[tuple[str, Callable[[Random], dict[str, Any]]]]


def places_of(site: SiteBlueprint) -> list[Place]:
    """Of a site with an even number only the telescopes are moved, of another one the roof too: it closes over mounts
    that are parked.
    """
    slews = site.number % 2 == 0
    found = [
        Place(
            {"telescopeUid": str(telescope.uid)},
            str(telescope.uid),
            [
                (str(telescope.mount_uid), _slew) if slews else (str(telescope.filter_wheel_uid), _turn),
                (str(telescope.focuser_uid), _focus),
            ],
        )
        for telescope in site.telescopes
    ]
    if not slews:
        roof = str(site.enclosure_uid)
        found.append(Place({"deviceUid": roof}, roof, [(roof, _roof)]))
    return found


def _slew(chance: Random) -> dict[str, Any]:
    if chance.random() < 0.3:
        return {"command_type": "mount.unpark"}
    target = {"position_type": "horizontal", "alt_deg": chance.uniform(20, 80), "az_deg": chance.uniform(0, 359)}
    return {"command_type": "mount.point", "target": target}


def _turn(chance: Random) -> dict[str, Any]:
    return {"command_type": "filter_wheel.position.set", "position": chance.randrange(5)}


def _focus(chance: Random) -> dict[str, Any]:
    return {"command_type": "focuser.move", "position": chance.randrange(20_000)}


def _roof(chance: Random) -> dict[str, Any]:
    return {"command_type": chance.choice(["enclosure.open", "enclosure.close"])}


class Caller:
    """One service; several of its tasks may share it. All it is told goes into the story."""

    def __init__(self, name: str, hub: Hub, story: Story, *, chance: Random) -> None:
        self.name = name
        self._hub = hub
        self._story = story
        self._chance = chance
        self.is_over = False
        """Ends `run` when what it began is answered: a request that is given up would be no story."""

    async def run(self, places: Sequence[Place]) -> None:
        while not self.is_over:
            place = self._chance.choice(places)
            held = await self.acquire(place.lease, duration_s=self._chance.uniform(*LEASES_S))
            if held is None:
                await self._seize(place)
            else:
                await self._work(place, held)
            await self._pause()

    async def acquire(self, what: dict[str, str], *, duration_s: float) -> dict[str, Any] | None:
        """The lease, if it was got."""
        body = {**what, "durationS": duration_s, "onExpiry": self._chance.choice(["stop", "finish"])}
        status, lease = await self._ask("POST", "/internal/leases", body)
        if status != 201:
            return None
        self._story.leases += 1
        return lease

    async def break_off(self, lease_id: str) -> bool:
        status, _ = await self._ask("POST", f"/internal/leases/{lease_id}/break", {"reason": "somebody else's turn"})
        return status == 200

    async def _seize(self, place: Place) -> None:
        [(name, uid)] = place.lease.items()
        if self._chance.random() < 0.4:
            await self.stop(place)
        status, page = await self._ask("GET", f"/internal/leases?{name}={uid}&held=true")
        if status == 200 and self._chance.random() < 0.5:
            for item in page["items"]:
                self._story.broken += await self.break_off(item["id"])

    async def _work(self, place: Place, lease: dict[str, Any]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._chance.randint(1, 5)):
                device_uid, draw = self._chance.choice(place.devices)
                ask = self.new_ask(device_uid, draw(self._chance), Fence(place.uid, lease["fence"]))
                nursery.start_soon(self._see_through, ask, lease["leaseUid"])
                await self._pause()
                if self._chance.random() < 0.15:
                    await self.stop(place)
        if self._chance.random() < 0.5:
            await self._ask("POST", f"/internal/leases/{lease['id']}/release", {"leaseUid": lease["leaseUid"]})

    def new_ask(self, device_uid: str, command: dict[str, Any], fence: Fence | None) -> Ask:
        command_id = str(UUID(int=self._chance.getrandbits(128), version=4))
        return self._story.ask(Ask(command_id, device_uid, command, fence))

    async def _see_through(self, ask: Ask, lease_uid: str) -> None:
        """Asks once or several times, perhaps at once, perhaps cancels, and looks what became of it."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._chance.choice([1, 1, 1, 2, 3])):
                nursery.start_soon(self.post, ask, lease_uid)
                await self._pause()
            if self._chance.random() < 0.3:
                await self._pause()
                nursery.start_soon(self.cancel, ask)
        if ask.answers[-1].status is None or self._chance.random() < 0.3:
            await self.post(ask, lease_uid)
        await self.look(ask)

    async def stop(self, place: Place) -> None:
        device_uid, draw = self._chance.choice(place.devices)
        what, _, _ = draw(self._chance)["command_type"].partition(".")
        if what in STOPPABLE:
            await self.post(self.new_ask(device_uid, {"command_type": f"{what}.stop"}, None), None)

    async def post(self, ask: Ask, lease_uid: str | None, *, timeout_s: float | None = None) -> None:
        timeout_s = self._chance.uniform(*TIMEOUTS_S) if timeout_s is None else timeout_s
        body = {
            "deviceUid": ask.device_uid,
            "commandId": ask.command_id,
            "command": ask.command,
            "timeoutS": timeout_s,
            "waitS": self._chance.choice([0, 0.5]),
        }
        if lease_uid is not None:
            body["leaseUid"] = lease_uid
        until = datetime.now(UTC) + timedelta(seconds=timeout_s)
        ask.deadline_at = until if ask.deadline_at is None else max(ask.deadline_at, until)
        ask.told("post", *await self._ask("POST", "/internal/commands", body))

    async def cancel(self, ask: Ask) -> None:
        body = {"mode": self._chance.choice(["graceful", "immediate"]), "waitS": 3}
        ask.told("cancel", *await self._ask("POST", f"/internal/commands/{ask.command_id}/cancel", body))

    async def look(self, ask: Ask) -> None:
        ask.told("get", *await self._ask("GET", f"/internal/commands/{ask.command_id}"))

    async def look_until_settled(self, asks: Sequence[Ask], *, within_s: float, unknown_for_s: float) -> None:
        """Until all have ended, or nothing but unknowns is left for some time, or all time is up."""
        left = list(asks)
        began = trio.current_time()
        while left and trio.current_time() < began + within_s:
            for ask in left:
                await self.look(ask)
            left = [ask for ask in left if ask.answers[-1].status not in (200, 404) or ask.goes_on]
            if trio.current_time() > began + unknown_for_s and all(ask.is_unsettled for ask in left):
                return
            await trio.sleep(LOOK_S)

    async def _pause(self) -> None:
        await trio.sleep(self._chance.uniform(*PAUSES_S))

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int | None, dict[str, Any]]:
        """Status and body; without a status there was no answer."""
        gateway = self._hub.gateway
        payload = b"" if body is None else json.dumps(body).encode()
        try:
            with trio.fail_after(ANSWER_WITHIN_S):
                async with http_connection(gateway.internal_url, token=gateway.service_token(self.name)) as connection:
                    answer = await connection.request(method, path, payload)
            return answer.status, answer.json()
        except (BrokenOff, OSError, trio.TooSlowError):
            await trio.sleep(NOBODY_THERE_S)
            return None, {}
