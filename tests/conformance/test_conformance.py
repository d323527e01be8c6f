"""A few of Autobahn's cases of each group against both ends; `nox -s conformance` runs all 517."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from tests.conformance.suite import cases_against_client, cases_against_server
from tests.conformance.verdicts import CASES, COMPRESSION_CASES, Verdict, failures, is_whole

SELECTION = (
    *("1.1.*", "2.*", "3.*", "4.1.*"),
    *("5.1", "5.2", "5.6", "5.7", "5.9", "5.15", "5.18"),
    *("6.2.*", "6.3.*", "6.4.1", "6.4.4", "6.12.*"),
    *("7.1.*", "7.5.1", "7.7.*", "7.9.*"),
    *("9.1.1", "9.2.6", "9.3.3", "10.1.1"),
    *("12.1.1", "13.7.1"),
)
COUNT = 89

Run = Callable[[Iterable[str], Path], Awaitable[list[Verdict]]]


@pytest.mark.parametrize("run", [cases_against_server, cases_against_client], ids=["server", "client"])
async def test_an_end_of_ours_passes_the_cases_of_every_group_and_takes_up_no_compression(
    run: Run, tmp_path: Path
) -> None:
    verdicts = await run(SELECTION, tmp_path)

    assert failures(verdicts) == []
    assert len(verdicts) == COUNT


@pytest.mark.parametrize(
    ("verdict", "passes"),
    [
        (Verdict("1.1.1", "OK", "OK"), True),
        (Verdict("3.2", "NON-STRICT", "OK"), True),
        (Verdict("7.13.1", "INFORMATIONAL", "INFORMATIONAL"), True),
        (Verdict("6.4.1", "OK", "WRONG CODE"), False),
        (Verdict("1.1.1", "UNIMPLEMENTED", "OK"), False),
        (Verdict("12.1.1", "UNIMPLEMENTED", "OK"), True),
        (Verdict("12.1.1", "OK", "OK"), False),
    ],
)
def test_a_case_passes_by_the_suites_word_and_one_of_compression_by_not_being_taken_up(
    verdict: Verdict, passes: bool
) -> None:
    assert (failures([verdict]) == []) is passes


def test_a_run_that_misses_a_case_is_not_whole() -> None:
    verdicts = [Verdict("1.1.1", "OK", "OK")] * CASES + [Verdict("12.1.1", "UNIMPLEMENTED", "OK")] * COMPRESSION_CASES

    assert is_whole(verdicts)
    assert not is_whole(verdicts[1:])
    assert not is_whole(verdicts[:-1])
