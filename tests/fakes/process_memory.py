"""How much memory another process holds, as Linux counts it, for tests that say how far it may rise."""

from pathlib import Path

KIB = 1024


class ProcessMemory:
    """The resident memory of a process, from /proc. Sizes are bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def now(self) -> int:
        return self._line("VmRSS")

    def peak(self) -> int:
        """The highest since the start, or since `forget_peak`."""
        return self._line("VmHWM")

    def _line(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        [size] = [int(line.split()[1]) * KIB for line in lines if line.startswith(f"{name}:")]
        return size
