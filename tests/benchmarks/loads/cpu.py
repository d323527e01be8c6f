"""The CPU time of a process under test: what its work costs, however busy the rest of the machine is."""

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond (Linux, `/proc/<pid>/task/<tid>/schedstat`)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
