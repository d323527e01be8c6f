"""Whoever asks, as the services below know callers: the service of the token, and the person it named."""

from skygw.auth.principals import Actor, ServicePrincipal, actor_for
from skygw.control.lease import Holder
from skygw.control.ledger import Caller
from skygw.errors import Forbidden
from skygw.protocol.order_members import ActorBody


def caller_of(principal: ServicePrincipal, said: ActorBody | None) -> Caller:
    """Who asks, and for whom. Raises `Forbidden` without `act_as`."""
    actor = actor_for(principal, None if said is None else Actor(said.uid, said.kind))
    return Caller(principal.service, None if actor is None else {"uid": actor.uid, "kind": actor.kind})


def canceler_of(principal: ServicePrincipal, said: ActorBody | None) -> Caller:
    """As `caller_of`; whoever may not name a person is not refused for it: a cancel gets through."""
    try:
        return caller_of(principal, said)
    except Forbidden:
        return caller_of(principal, None)


def holder_of(principal: ServicePrincipal, said: ActorBody | None) -> Holder:
    """Who holds a lease. Raises `Forbidden` for an actor without `act_as`."""
    actor = actor_for(principal, None if said is None else Actor(said.uid, said.kind))
    return Holder(principal.service) if actor is None else Holder(principal.service, actor.uid, actor.kind)
