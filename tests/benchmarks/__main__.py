"""`python -m tests.benchmarks`: what a direct request, a connect and an idle socket cost, beside a bare server."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import trio
from rich.console import Console

from tests.benchmarks.measuring import repeat
from tests.benchmarks.plan import FULL, QUICK, Plan
from tests.benchmarks.report import Report


async def run(plan: Plan, data_dir: Path) -> Report:
    """All repetitions. Raises `trio.TooSlowError` when they take longer than the plan allows."""
    report = Report()
    with trio.fail_after(plan.at_most_s):
        for _ in range(plan.repetitions):
            await repeat(plan, data_dir, report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than 40 s, and rougher")
    parser.add_argument("--json", action="store_true", help="every value of every repetition, for programs")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="skygw-benchmarks-") as folder:
        try:
            report = trio.run(run, plan, Path(folder, "hub"))
        except trio.TooSlowError:
            sys.exit(f"given up after {plan.at_most_s:.0f} s: this machine is too busy to measure anything on")
    if arguments.json:
        sys.stdout.write(json.dumps(report.json(), indent=2) + "\n")
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 160))


if __name__ == "__main__":
    main()
