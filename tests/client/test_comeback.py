"""When a node comes back, and what is said of it on site, without waiting for it."""

import pytest

from skygw.client.comeback import PASSING_REFUSALS, Comebacks
from skygw.client.link import LinkEnded
from skygw.client.on_site import advice


def closed(code: int | None, *, asked_s: float = 0.0) -> LinkEnded:
    return LinkEnded("closed", code=code, retry_after_s=asked_s)


def refused(status: int, *, asked_s: float = 0.0) -> LinkEnded:
    return LinkEnded("refused", status=status, retry_after_s=asked_s)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 300.0), (0.5, 600.0), (0.999999, 900.0)])
@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503, 4504, 4505, 4999, 1002, 1003, 1007, 1009])
def test_a_node_that_is_at_fault_comes_back_in_5_to_15_minutes_and_asks_for_a_person(
    code: int, chance: float, seconds: float
) -> None:
    comeback = Comebacks(lambda: chance).after(closed(code), lasted_s=60.0)

    assert comeback.in_s == pytest.approx(seconds, rel=1e-3)
    assert comeback.is_late
    assert advice(closed(code)).endswith(".")


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 4000, 4001, 4002, 4003, 4004, 4005, 4499, 5000])
def test_any_other_code_and_none_at_all_come_back_now_with_a_jitter(code: int | None) -> None:
    comeback = Comebacks(lambda: 0.5).after(closed(code), lasted_s=60.0)

    assert comeback == (0.25, False)


@pytest.mark.parametrize("end", [closed(4502), closed(4999), closed(1009), closed(None), refused(403), refused(401)])
def test_no_end_however_often_keeps_a_node_away_for_longer_than_15_minutes(end: LinkEnded) -> None:
    comebacks = Comebacks(lambda: 0.999999)

    assert max(comebacks.after(end, lasted_s=0.0).in_s for _ in range(1_000)) <= 900.0


def test_a_drained_node_comes_back_when_the_gateway_asked_and_not_all_at_once() -> None:
    early = Comebacks(lambda: 0.0).after(closed(4001, asked_s=3.0), lasted_s=60.0)
    late = Comebacks(lambda: 0.999999).after(closed(4001, asked_s=3.0), lasted_s=60.0)

    assert early == (3.0, False)
    assert late.in_s == pytest.approx(3.5)


def test_the_wait_grows_up_to_a_cap_and_starts_over_after_a_steady_session() -> None:
    comebacks = Comebacks(lambda: 1.0)
    waits = [comebacks.after(closed(None), lasted_s=0.0).in_s for _ in range(12)]
    after_a_good_session = comebacks.after(closed(None), lasted_s=3600.0).in_s

    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    assert after_a_good_session == waits[0]


def test_a_session_that_ends_at_once_does_not_reset_the_wait() -> None:
    comebacks = Comebacks(lambda: 1.0)
    waits = [comebacks.after(closed(None), lasted_s=0.1).in_s for _ in range(3)]

    assert waits == sorted(set(waits))


def test_a_refused_token_is_replaced_at_once_but_only_once() -> None:
    comebacks = Comebacks(lambda: 1.0)
    waits = [comebacks.after(refused(401), lasted_s=0.0).in_s for _ in range(2)]

    assert waits[0] == 0.0
    assert waits[1] > 0.0


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_that_may_pass_is_asked_again_soon_until_it_has_had_its_time(status: int) -> None:
    comebacks = Comebacks(lambda: 0.5)
    early = [comebacks.after(refused(status), lasted_s=0.0) for _ in range(PASSING_REFUSALS)]
    late = comebacks.after(refused(status), lasted_s=0.0)

    assert not any(comeback.is_late for comeback in early)
    assert 20.0 < sum(comeback.in_s for comeback in early) < 60.0
    assert late == (600.0, True)
    assert not comebacks.after(closed(None), lasted_s=0.0).is_late
    assert not comebacks.after(refused(status), lasted_s=0.0).is_late


@pytest.mark.parametrize("status", [403, 426])
def test_a_refusal_that_needs_a_person_is_not_asked_again_for_minutes(status: int) -> None:
    assert Comebacks(lambda: 0.0).after(refused(status), lasted_s=0.0) == (300.0, True)
    assert advice(refused(status)) != advice(refused(499))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 301])
def test_any_other_refusal_is_asked_again_soon_and_after_what_it_asks_for(status: int) -> None:
    assert Comebacks(lambda: 0.0).after(refused(status, asked_s=7.0), lasted_s=0.0) == (7.0, False)


def test_nobody_can_send_a_node_away_for_longer_than_15_minutes() -> None:
    assert Comebacks(lambda: 0.0).after(closed(4001, asked_s=1e9), lasted_s=0.0).in_s == 900.0
    assert Comebacks(lambda: 0.0).after(closed(4502, asked_s=1e9), lasted_s=0.0).in_s == 900.0
