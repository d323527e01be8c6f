"""Cancels: safing, and so on their way before anybody is asked; and an answer that claims no more than is known."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import trio

from skygw.control.admissions import Admissions, Revocation
from skygw.control.command_frames import send_cancel
from skygw.control.ledger import ENDS, CancelRequest, CommandRecord, CommandState
from skygw.control.live_command import LiveCommand
from skygw.control.live_commands import LiveCommands
from skygw.errors import LinkLost, NodeOffline, NotFound, RoutingUnavailable
from skygw.nodes.connection_registry import ConnectionRegistry

LEDGER_PATIENCE_S = 0.5
"""How long a cancel waits to be told whose command it is for, before every node is asked."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancel met. Without a record nothing is known of the command but what `met` says."""

    met: Literal["asked", "before_start", "ended"]
    record: CommandRecord | None


class Cancels:
    """Takes commands back, or has their nodes cancel them."""

    def __init__(self, *, registry: ConnectionRegistry, admissions: Admissions, live: LiveCommands) -> None:
        self._registry = registry
        self._admissions = admissions
        self._live = live

    async def cancel(self, asked: CancelRequest) -> Cancellation:
        """Asks the node to cancel; safing. Needs no ledger for a command this process sent; for another one, with the
        ledger away, every connected node is asked. Raises `NodeOffline`, `NotFound`.

        A command that is being admitted, or waits here, is taken back instead: a cancel would overtake it. Who asked is
        recorded when the ledger takes it, and not waited for.
        """
        command_id = asked.command_id
        canceled = Revocation("canceled before it was written", asked.by, asked)
        admissions = self._admissions.of(command_id)
        for admission in admissions:
            admission.revoke(canceled)
        live = self._live.find(command_id)
        if live is not None and self._live.take_back(live, canceled):
            self._live.cancel_asked(asked)
            await self._live.recorded(live.record)
            return Cancellation("before_start", live.record)
        if live is not None and not live.ended:
            return await self._cancel_live(live, asked)
        record: CommandRecord | None = None
        with trio.move_on_after(LEDGER_PATIENCE_S), suppress(RoutingUnavailable):
            if admissions:
                await admissions[0].looked_up.wait()
                if admissions[0].is_new:
                    return Cancellation("before_start", None)
            record = await self._live.known(command_id)
            if record is None and admissions:  # which ended without it
                return Cancellation("before_start", None)
            if record is None:
                raise NotFound(f"No command {command_id} is known.")
        return self._cancel_stored(record, asked)

    async def _cancel_live(self, live: LiveCommand, asked: CancelRequest) -> Cancellation:
        session = self._registry.current(live.record.install_id)
        if session is not None:
            send_cancel(session, asked)  # before anything is asked of the ledger
            live.is_released = True
        self._live.cancel_asked(asked)
        if live.record.state is CommandState.UNKNOWN:
            with trio.move_on_after(LEDGER_PATIENCE_S):
                await self._live.resolve(live)
        if live.ended:
            return Cancellation("ended", live.record)
        if session is None:
            raise _offline()
        return Cancellation("asked", live.record)

    def _cancel_stored(self, record: CommandRecord | None, asked: CancelRequest) -> Cancellation:
        if record is None:
            self._live.cancel_asked(asked)
            # Nobody here knows whose command it was. A node that does not know the id only remembers not to run it.
            for connected in self._registry:
                with suppress(LinkLost):
                    send_cancel(connected, asked)
            return Cancellation("asked", None)
        session = self._registry.current(record.install_id)
        if record.state not in ENDS:
            if session is None:
                self._live.cancel_asked(asked)
                raise _offline()
            send_cancel(session, asked)
            if self._live.find(record.command_id) is None:  # sent before a restart: follow it again
                self._live.add_again(record)
        self._live.cancel_asked(asked)
        return Cancellation("ended" if record.state in ENDS else "asked", record)


def _offline() -> NodeOffline:
    return NodeOffline("This installation is not connected; its node runs its link-loss policy by itself.")
