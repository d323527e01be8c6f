"""What is tried again, what is set aside, and how long is waited."""

import pytest

from skygw.client.problems import rebuilt
from skygw.client.retrying import BARE_REFUSALS, LONGEST_S, MAX_ASKED_S, Backoff, Verdict, judge
from skygw.errors import GatewayError, LinkLost

BARE = b"<html>nginx</html>"


def answered(status: int, code: str | None = None, retry: str | None = None, after: str = "") -> GatewayError:
    said = f'{{"code": "{code}", "retry": "{retry}", "detail": "No."}}'.encode() if code else BARE
    return rebuilt(status, {"retry-after": after}, said)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (LinkLost("gone"), Verdict.ALL),
        (answered(401, "unauthenticated", "after_auth"), Verdict.ALL),
        (answered(401), Verdict.ALL),
        (answered(403, "forbidden", "never"), Verdict.ALL),
        (answered(429, "rate_limited", "after"), Verdict.ALL),
        (answered(503, "draining", "after"), Verdict.ALL),
        (answered(503), Verdict.ALL),
        (answered(500, "internal", "query_first"), Verdict.THIS),
        (answered(502), Verdict.THIS),
        (answered(504), Verdict.THIS),
        (answered(507, "storage_full", "after"), Verdict.THIS),
        (answered(408), Verdict.THIS),
        (answered(409, "interlock_active", "after"), Verdict.THIS),
        (answered(404), Verdict.THIS),
        (answered(413), Verdict.THIS),
        (answered(403), Verdict.THIS),
        (answered(404, "not_found", "never"), Verdict.NEVER),
        (answered(409, "illegal_transition", "never"), Verdict.NEVER),
        (answered(409, "assets_incomplete", "never"), Verdict.NEVER),
        (answered(409, "id_reused", "never"), Verdict.NEVER),
        (answered(413, "quota_exceeded", "never"), Verdict.NEVER),
        (answered(422, "invalid", "never"), Verdict.NEVER),
    ],
    ids=lambda value: value.name if isinstance(value, Verdict) else f"{value.details.get('httpStatus')} {value.reason}",
)
def test_what_is_about_all_about_one_and_for_ever(error: GatewayError, verdict: Verdict) -> None:
    assert judge(error) is verdict


def test_a_refusal_without_a_reason_is_believed_in_the_end() -> None:
    assert judge(answered(404), bare_before=BARE_REFUSALS - 1) is Verdict.THIS
    assert judge(answered(404), bare_before=BARE_REFUSALS) is Verdict.NEVER
    assert judge(answered(502), bare_before=100) is Verdict.THIS


def test_waits_grow_to_a_bound_with_jitter_over_all_of_them_and_begin_anew_after_a_success() -> None:
    longest, shortest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    waits = [longest.after(LinkLost("gone")) for _ in range(40)]
    jittered = [shortest.after(LinkLost("gone")) for _ in range(40)]
    longest.succeeded()

    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_S
    assert jittered[-1] == pytest.approx(LONGEST_S / 10)
    assert longest.after(LinkLost("gone")) == 1.0


def test_no_wait_is_shorter_than_was_asked_for_and_nobody_can_ask_for_a_day() -> None:
    assert Backoff(lambda: 0.0).after(answered(503, "draining", "after", "30")) >= 30
    assert Backoff(lambda: 0.0).after(answered(503, "draining", "after", "86400")) <= MAX_ASKED_S + LONGEST_S
