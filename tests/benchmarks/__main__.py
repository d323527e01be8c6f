"""`python -m tests.benchmarks`: what a message, a request and a socket cost, beside other servers in the same run."""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import trio
from rich.console import Console

from tests.benchmarks import command_figures, echo_figures, gateway_figures, telemetry_figures, upload_figures
from tests.benchmarks.plan import FULL, PARTS, QUICK, TELEMETRY, Plan
from tests.benchmarks.processes import cores
from tests.benchmarks.report import Report

OF_THE_STACK = {"echo", "get", "connects", "memory"}


async def run(plan: Plan, parts: set[str], data_dir: Path) -> Report:
    """All repetitions. `data_dir` is kept between them."""
    report = Report()
    for _ in range(plan.repetitions):
        if parts & OF_THE_STACK:
            await echo_figures.repeat(plan, parts, cores(), report)
        if parts - {"echo", "get", "commands", "uploads"} - TELEMETRY:
            await gateway_figures.repeat(plan, parts, cores(), data_dir, report)
        if "commands" in parts:
            await command_figures.repeat(plan, cores(), data_dir, report)
        if parts & TELEMETRY:
            await telemetry_figures.repeat(plan, parts, cores(), data_dir, report)
        if "uploads" in parts:
            await upload_figures.repeat(plan, data_dir, report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short repetitions, without the 2,000 sockets")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="every value of every repetition, for programs")
    printed.add_argument("--markdown", action="store_true", help="tables as docs/performance.md has them")
    parser.add_argument("--repetitions", type=int, help="instead of five, or two with --quick")
    parser.add_argument(
        "--only",
        choices=[*PARTS, "telemetry"],
        action="append",
        help="this part (may be given again); `telemetry` is six of them",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skygw-benchmarks-") as folder:
        parts = set(arguments.only or PARTS)
        if "telemetry" in parts:
            parts |= TELEMETRY
        plan = QUICK if arguments.quick else FULL
        plan = replace(plan, repetitions=arguments.repetitions or plan.repetitions)
        report = trio.run(run, plan, parts, Path(folder, "hub"))
    if arguments.json:
        sys.stdout.write(json.dumps(report.json(), indent=2) + "\n")
    elif arguments.markdown:
        sys.stdout.write(report.markdown() + "\n")
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 160))


if __name__ == "__main__":
    main()
