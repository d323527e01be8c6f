"""The benchmarks run and yield every figure; no number is judged."""

from pathlib import Path

from tests.benchmarks.__main__ import run
from tests.benchmarks.plan import CALLERS, TINY
from tests.benchmarks.report import BARE, GATEWAY, WEBSOCKET_ECHO


async def test_a_run_yields_every_figure_for_the_gateway_and_for_the_bare_server(tmp_path: Path) -> None:
    report = await run(TINY, tmp_path / "hub")

    by_socket = {"memory per idle connection, KiB", "connects per second"}
    assert len(report.values) == len(by_socket) + 3 * len(CALLERS)
    for figure, subjects in report.values.items():
        assert set(subjects) == ({GATEWAY, WEBSOCKET_ECHO} if figure in by_socket else {GATEWAY, *BARE})
        assert all(len(values) == TINY.repetitions for values in subjects.values())
    assert len(list(report.rows())) == len(report.values)
