"""What is said on the command socket: commands, cancels, subscriptions to them, and direct requests (contract §6)."""

from collections.abc import Sequence

import trio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.conversations.direct import DirectRequests
from skygw.conversations.orders import Orders
from skygw.conversations.refusals import refusal
from skygw.conversations.streams import Subscriptions
from skygw.errors import Busy, GatewayError
from skygw.protocol.codec import BadFrame, Read, encode, from_commander
from skygw.protocol.commander_frames import (
    CancelPublished,
    CommanderFrame,
    DirectAsked,
    DirectCanceled,
    PublishCommand,
    SubscribeCommands,
)
from skygw.protocol.streams import UnsubscribeStream
from skygw.telemetry.outlet import SubscriberOutlet


class CommandConversation:
    """Each frame wants a scope of its own. `principal` is set anew when the token is renewed.

    The reader waits for nothing here: a stop must not wait behind anything of this socket. Whoever does not read the
    answers is told, when it does, how many were left out.
    """

    def __init__(
        self,
        principal: ServicePrincipal,
        *,
        outlet: SubscriberOutlet,
        orders: Orders,
        direct: DirectRequests,
        subscriptions: Subscriptions,
    ) -> None:
        self.principal = principal
        self.outlet = outlet
        outlet.unsaid = _left_out
        self._orders = orders
        self._direct = direct
        self._subscriptions = subscriptions
        self._is_looking = False

    def decode(self, message: str) -> Sequence[Read[CommanderFrame] | BadFrame]:
        return from_commander.decode(message)

    async def take(self, frame: CommanderFrame, here: trio.Nursery, lasting: trio.Nursery) -> None:
        about = _id_of(frame)
        try:
            match frame:
                case PublishCommand():
                    self._orders.publish(frame, self.principal, lasting)
                    self._look_again(here)
                case CancelPublished():
                    self._orders.cancel(frame, self.principal, lasting)
                case SubscribeCommands():
                    self.principal.require(Scope.STREAMS_READ)
                    await self._subscriptions.subscribe(frame.as_stream(), here)
                case UnsubscribeStream():
                    self._subscriptions.unsubscribe(frame)
                case DirectAsked():
                    self.principal.require(Scope.NODES_CALL)
                    self._direct.ask(frame, self.principal.service, here)
                case DirectCanceled():
                    self._direct.cancel(frame)
                case _:
                    raise AssertionError(frame)
        except GatewayError as error:
            self.outlet.say(encode(refusal(error, about)))

    def _look_again(self, here: trio.Nursery) -> None:
        if not self._is_looking:
            self._is_looking = True
            here.start_soon(self._orders.look_again)

    async def has_room(self) -> None:
        """There always is: but others, the writer too, have their turn."""
        await trio.lowlevel.checkpoint()

    def ended(self, lasting: trio.Nursery) -> None:
        self._orders.ended(lasting)


def _id_of(frame: CommanderFrame) -> str | None:
    match frame:
        case PublishCommand() | CancelPublished():
            return str(frame.command_id)
        case SubscribeCommands() | UnsubscribeStream():
            return frame.subscription_id
        case DirectAsked() | DirectCanceled():
            return str(frame.id)
        case _:
            return None


def _left_out(count: int) -> str:
    return encode(
        refusal(
            Busy(f"{count} answers were left out here: they came faster than they were read.", retry_after_s=1.0), None
        )
    )
