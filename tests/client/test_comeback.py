"""When a node comes back, without waiting for it."""

import pytest

from skygw.client.comeback import Comeback
from skygw.client.link import LinkEnded


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 300.0), (0.5, 600.0), (0.999999, 900.0)])
def test_a_superseded_node_comes_back_in_5_to_15_minutes(chance: float, seconds: float) -> None:
    delay = Comeback(lambda: chance).delay(LinkEnded("superseded", code=4501), lasted_s=60.0)

    assert delay == pytest.approx(seconds, rel=1e-3)


def test_a_drained_node_comes_back_when_the_gateway_asked_and_not_all_at_once() -> None:
    delay = Comeback(lambda: 0.5).delay(LinkEnded("draining", code=4001, retry_after_s=3.0), lasted_s=60.0)

    assert 3.0 < delay < 4.0


def test_the_wait_grows_up_to_a_cap_and_starts_over_after_a_steady_session() -> None:
    comeback = Comeback(lambda: 1.0)
    waits = [comeback.delay(LinkEnded("gone"), lasted_s=0.0) for _ in range(12)]
    after_a_good_session = comeback.delay(LinkEnded("gone"), lasted_s=3600.0)

    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    assert after_a_good_session == waits[0]


def test_a_session_that_ends_at_once_does_not_reset_the_wait() -> None:
    comeback = Comeback(lambda: 1.0)
    waits = [comeback.delay(LinkEnded("gone"), lasted_s=0.1) for _ in range(3)]

    assert waits == sorted(set(waits))


def test_a_refused_token_is_replaced_at_once_but_only_once() -> None:
    comeback = Comeback(lambda: 1.0)
    waits = [comeback.delay(LinkEnded("401", status=401), lasted_s=0.0) for _ in range(2)]

    assert waits[0] == 0.0
    assert waits[1] > 0.0


@pytest.mark.parametrize("status", [403, 426])
def test_a_refusal_that_needs_a_person_is_not_asked_again_for_minutes(status: int) -> None:
    assert Comeback(lambda: 0.0).delay(LinkEnded("no", status=status), lasted_s=0.0) == 300.0


def test_retry_after_is_waited_for_but_never_longer_than_15_minutes() -> None:
    assert Comeback(lambda: 0.0).delay(LinkEnded("503", status=503, retry_after_s=7.0), lasted_s=0.0) == 7.0
    assert Comeback(lambda: 0.0).delay(LinkEnded("bye", code=4001, retry_after_s=1e9), lasted_s=0.0) == 900.0
