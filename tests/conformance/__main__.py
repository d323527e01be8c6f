"""`python -m tests.conformance`: every case of Autobahn against both ends; a table, a report, 1 when one fails."""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from tests.conformance.suite import cases_against_client, cases_against_server
from tests.conformance.verdicts import NOT_OFFERED, Verdict, failures, is_whole

AT_MOST_S = 20 * 60.0

GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits and performance",
    "10": "miscellaneous",
    "12": "compression, different payloads",
    "13": "compression, different parameters",
}


async def run(folder: Path) -> dict[str, list[Verdict]]:
    """Both ends, one after the other, so that neither is slow because of the other."""
    with trio.fail_after(AT_MOST_S):
        return {
            "server": await cases_against_server(["*"], folder / "server"),
            "client": await cases_against_client(["*"], folder / "client"),
        }


def table(end: str, verdicts: Sequence[Verdict]) -> Table:
    words = ("OK", "NON-STRICT", "INFORMATIONAL", NOT_OFFERED)
    shown = Table("group", "cases", *words, "failed", title=f"Autobahn against our {end}")
    rows = {f"{group} {about}": [v for v in verdicts if v.group == group] for group, about in GROUPS.items()}
    rows["all"] = list(verdicts)
    for name, of_group in rows.items():
        failed = failures(of_group)
        passed = Counter(verdict.behavior for verdict in of_group if verdict.passes)
        cells = [len(of_group), *(passed[word] for word in words), len(failed)]
        shown.add_row(name, *map(str, cells), end_section=name.startswith("13"))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--report", type=Path, help="where the suite's own report goes, HTML and JSON")
    folder = parser.parse_args().report or Path(tempfile.mkdtemp(prefix="skygw-conformance-"))
    ends = trio.run(run, folder)
    console = Console(width=None if sys.stdout.isatty() else 120)
    is_good = True
    for end, verdicts in ends.items():
        console.print(table(end, verdicts))
        for verdict in failures(verdicts):
            console.print(f"  {verdict.case}: {verdict.behavior}, closing {verdict.close}", style="red")
        if not is_whole(verdicts):
            console.print(f"  the {end} has no verdict on some of the cases", style="red")
        is_good = is_good and is_whole(verdicts) and not failures(verdicts)
    console.print(f"the suite's own report: {folder}")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
