"""What one simulated installation publishes by itself: the state of all that is its own, and what happens there."""

import sqlite3
from collections.abc import Callable
from typing import Any

import trio

from skygw import __version__
from skygw.client.node import NodeClient
from skygw.ids import CommandId, DeviceUid
from skygw.protocol.node_frames import SnapshotStream
from skygw.sim.constraints import constraints_of
from skygw.sim.devices.device import DeviceFault
from skygw.sim.installation import Site
from skygw.sim.journal import Action, Entry
from skygw.sim.posts import Post

TOLD = frozenset(
    {
        Action.ROOF_OPENED,
        Action.ROOF_CLOSED,
        Action.ROOF_STRUCK_MOUNT,
        Action.RAIN_BEGAN,
        Action.RAIN_ENDED,
        Action.FAULT,
    }
)
"""What the hub hears of as a durable event, under the journal's own word."""

MAX_WAITING = 256
"""Events that wait for the disk: roofs, rain and faults of one installation, 500 bytes each."""

PROMISED_TURNS = 3
"""A newer snapshot is promised within this many turns."""


class NodeTelemetry:
    """Of one `Post`. `why_shut` says why the telescope must not observe, in one word, or nothing."""

    def __init__(
        self,
        post: Post,
        site: Site,
        client: NodeClient,
        *,
        every_s: float,
        why_shut: Callable[[], str | None],
        note: Callable[[str], None],
    ) -> None:
        self._post = post
        self._site = site
        self._client = client
        self._every_s = every_s
        self._why_shut = why_shut
        self._note = note
        self._constraints = constraints_of(post, site)
        self._device_uids = {str(device.uid) for device in post.devices}
        self._happened, self._happenings = trio.open_memory_channel[Entry](MAX_WAITING)

    async def run(self) -> None:
        """Publishes regularly, and what happens at once; needs a client that runs. Never returns."""
        self._site.journal.listeners.append(self._hear)
        try:
            await self._publish_event({"event_type": "boot", "software_version": f"skygw-sim/{__version__}"})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_what_happens)
                while True:
                    await trio.sleep(self._every_s)
                    self.publish()
        finally:
            self._site.journal.listeners.remove(self._hear)

    # Snapshots.

    def publish(self) -> None:
        """The state of everything that can be read; of the rest the hub sees that it is silent."""
        self._client.set_local_control(self._site.local_control)
        said: dict[DeviceUid, dict[str, Any]] = {}
        for device in self._post.devices:
            try:
                said[device.uid] = self._site.snapshot_of(device)
            except DeviceFault:
                continue
            self._snapshot(SnapshotStream.DEVICE_SNAPSHOT, said[device.uid])
        for telescope in self._post.telescopes:
            states = {str(device.uid): said[device.uid]["state"] for device in telescope.devices if device.uid in said}
            self._snapshot(
                SnapshotStream.TELESCOPE_SNAPSHOT,
                {
                    "uid": str(telescope.uid),
                    "observatory_uid": str(self._site.blueprint.observatory_uid),
                    "name": telescope.name,
                    "devices": states,
                },
            )
            why = self._why_shut()
            reasons = [] if why is None else [why]
            interlock = {"uid": str(telescope.uid), "active": bool(reasons), "reasons": reasons}
            self._snapshot(SnapshotStream.SHUTDOWN_INTERLOCK_SNAPSHOT, interlock)
        for constraint in self._constraints:
            self._snapshot(SnapshotStream.CONSTRAINT_SNAPSHOT, constraint.snapshot())
            self._snapshot(SnapshotStream.CONSTRAINT_STATUS_SNAPSHOT, constraint.status_snapshot())

    def _snapshot(self, stream: SnapshotStream, data: dict[str, Any]) -> None:
        self._client.publish_snapshot(stream, data, max_silence_s=self._every_s * PROMISED_TURNS)

    # Durable.

    async def log_command(self, line: str, command_id: CommandId) -> None:
        """The end of a command as a line of the telescope's log."""
        for telescope in self._post.telescopes:
            entry = {"log_entry_type": "command", "telescope_uid": str(telescope.uid), "message": line}
            try:
                await self._client.publish_log({**entry, "command_id": str(command_id)})
            except sqlite3.Error as error:
                self._note(f"the log cannot be kept: {error}")  # and the command has ended all the same

    def _hear(self, entry: Entry) -> None:
        if entry.action in TOLD and entry.device_uid in self._device_uids:
            try:
                self._happened.send_nowait(entry)
            except trio.WouldBlock:
                self._note(f"{entry.action.value} cannot be told: {MAX_WAITING} events wait for the disk")

    async def _tell_what_happens(self) -> None:
        async for entry in self._happenings:
            self.publish()
            about = {"device_uid": entry.device_uid, "command_id": entry.command_id, "cause": entry.cause}
            await self._publish_event(
                {
                    "event_type": entry.action.value,
                    **{key: value for key, value in about.items() if value is not None},
                    "details": entry.details,
                }
            )

    async def _publish_event(self, data: dict[str, Any]) -> None:
        whose = {"observatory_uid": str(self._site.blueprint.observatory_uid)}
        for telescope in self._post.telescopes:
            whose["telescope_uid"] = str(telescope.uid)
        try:
            await self._client.publish_event({**data, **whose})
        except sqlite3.Error as error:
            self._note(f"{data['event_type']} cannot be kept: {error}")
