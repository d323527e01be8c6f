"""Whoever is told to come back later is told when (contract §3)."""

import json

import pytest

from skygw.errors import GatewayError, Retry
from skygw.routers.problems import STATUS, problem

LATER = [kind for kind in STATUS if kind.retry_unless_told is Retry.AFTER]


@pytest.mark.parametrize("kind", LATER, ids=lambda kind: kind.__name__)
def test_an_error_that_passes_says_when_to_come_back(kind: type[GatewayError]) -> None:
    for error, expected in ((kind("Not now."), "2"), (kind("Not now.", retry_after_s=0.2), "1")):
        status, headers, body = problem(error)
        assert status in (409, 429, 503, 507)
        assert json.loads(body)["retry"] == "after"
        assert dict(headers)["retry-after"] == expected


def test_too_much_and_not_now_are_among_them() -> None:
    assert [kind for kind in STATUS if STATUS[kind] in (429, 503) and kind not in LATER] == []
