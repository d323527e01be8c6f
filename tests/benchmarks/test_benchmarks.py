"""The benchmarks run and yield every figure; no number is judged."""

from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks import frames
from tests.benchmarks.__main__ import run
from tests.benchmarks.plan import PARTS, TINY
from tests.benchmarks.report import OURS
from tests.wire.samples import FILES, name_of

OURS_ALONE = ("put and written", "commands to their end")
"""What nobody else does, or only in part."""


@pytest.mark.timeout(300)  # ten processes, one after the other on one core
async def test_a_run_yields_every_figure_for_our_servers_and_the_others(tmp_path: Path) -> None:
    report = await run(TINY, set(PARTS), tmp_path / "hub")

    measured = {figure.partition(",")[0] for figure in report.values}
    assert measured == {
        "commands to their end",
        "connects",
        "deliveries to 5 subscribers",
        "direct requests",
        "echo",
        "memory per idle node",
        "log lines acked to 1 node",
        "log lines acked to 2 nodes",
        "memory per idle socket",
        "memory per logged subscription",
        "memory per retained subscription",
        "node to 5 subscribers at 500 snapshots a second",
        "nodes welcomed",
        "requests put and written to 10 node sessions",
        "resume of 20 events",
        "short GETs",
        "snapshots in from 4 nodes",
        "stop behind dsl at the node while 0.25 MiB come up",
        "stop behind dsl proven to its caller while 0.25 MiB come up",
        "stop over loopback at the node while 0.25 MiB come up",
        "stop over loopback proven to its caller while 0.25 MiB come up",
        "uploads with SHA-256 and fsync",
    }
    for figure, subjects in report.values.items():
        assert all(len(values) == TINY.repetitions for values in subjects.values())
        assert any(part in figure for part in OURS_ALONE) or (OURS in subjects and len(subjects) > 1)
    assert all(f"| {figure} |" in report.markdown() for figure in report.values)
    assert len(list(report.rows())) == sum(len(subjects) for subjects in report.values.values())


def test_every_golden_frame_has_a_cost_to_read_and_one_to_write() -> None:
    costs = frames.measure(turns=1)
    assert {cost.name for cost in costs} >= {name_of(path) for path in FILES}
    assert Counter(cost.direction for cost in costs) == {"read": len(costs) // 2, "write": len(costs) // 2}
    assert all(cost.ours > 0 and cost.json > 0 and cost.pydantic > 0 for cost in costs)
