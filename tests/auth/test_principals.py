"""What a service may do, and for whom it may speak."""

from dataclasses import replace

import pytest

from skygw.auth.principals import Actor, Scope, ServicePrincipal, actor_for
from skygw.errors import Forbidden, RoutingUnavailable

PERSON = Actor(uid="3b0f", kind="user")


def service(*scopes: str) -> ServicePrincipal:
    return ServicePrincipal(service="scheduler", scopes=frozenset(scopes), expires_at=0.0)


def test_granted_scopes_pass() -> None:
    principal = service("nodes:read", "nodes:call", "something:else")
    principal.require(Scope.NODES_READ)
    principal.require(Scope.NODES_READ, Scope.NODES_CALL)


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(Forbidden, match="lacks the scope “nodes:command”") as refused:
        service("nodes:read").require(Scope.NODES_READ, Scope.NODES_COMMAND)
    assert refused.value.details == {"missingScopes": ["nodes:command"]}


def test_all_missing_scopes_are_named() -> None:
    with pytest.raises(Forbidden, match="“nodes:read” and “act_as”"):
        service().require(Scope.NODES_READ, Scope.ACT_AS)


@pytest.mark.parametrize("scope", ["nodes", "nodes:*", "NODES:READ", "nodes:read "])
def test_scopes_match_whole_and_as_written(scope: str) -> None:
    with pytest.raises(Forbidden):
        service(scope).require(Scope.NODES_READ)


def test_a_service_that_may_act_for_others_brings_the_actor_along() -> None:
    assert actor_for(service("act_as"), PERSON) == PERSON


def test_a_service_that_names_nobody_needs_no_scope() -> None:
    assert actor_for(service(), None) is None


def test_naming_an_actor_without_the_scope_is_forbidden() -> None:
    with pytest.raises(Forbidden, match="“act_as”"):
        actor_for(service("nodes:admin"), PERSON)


def test_who_is_believed_for_safing_alone_passes_there_and_nowhere_else() -> None:
    principal = replace(service("nodes:command", "act_as"), only_safing=True)
    principal.require_for_safing(Scope.NODES_COMMAND)
    assert actor_for(principal, PERSON) == PERSON
    with pytest.raises(RoutingUnavailable, match="only safing passes"):
        principal.require(Scope.NODES_COMMAND)
    with pytest.raises(Forbidden, match="“nodes:read”"):
        principal.require_for_safing(Scope.NODES_READ)
