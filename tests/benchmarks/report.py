"""The figures of a run: medians with their spread, and the ratios of the gateway to the bare server."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

GATEWAY = "gateway"
HTTP_ECHO = "bare HTTP echo"
WEBSOCKET_ECHO = "bare WebSocket echo"
BARE = (HTTP_ECHO, WEBSOCKET_ECHO)


@dataclass(frozen=True)
class Spread:
    """The median of the repetitions, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}–{_short(self.most)})"


@dataclass
class Report:
    """Values by figure and subject, one for each repetition, in the order they were measured."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, figure: str, subject: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(subject, []).append(value)

    def ratio(self, figure: str, bare: str) -> Spread | None:
        """Gateway ÷ bare, repetition by repetition, because both are measured within seconds of each other. `None`
        where the bare server has no such figure, or nothing was counted.
        """
        subjects = self.values[figure]
        pairs = zip(subjects[GATEWAY], subjects.get(bare, []), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return Spread.of(ratios) if ratios else None

    def json(self) -> dict[str, object]:
        return {
            figure: {
                **{subject: {"median": median(values), "all": values} for subject, values in subjects.items()},
                **{f"ratio to {bare}": ratio.median for bare in BARE if (ratio := self.ratio(figure, bare))},
            }
            for figure, subjects in self.values.items()
        }

    def rows(self) -> Iterator[list[str]]:
        """Figure, gateway, and for each bare server its value and the ratio."""
        for figure, subjects in self.values.items():
            row = [figure, str(Spread.of(subjects[GATEWAY]))]
            for bare in BARE:
                ratio = self.ratio(figure, bare)
                row += [str(Spread.of(subjects[bare])) if bare in subjects else "", str(ratio or "")]
            yield row

    def show(self, console: Console) -> None:
        table = Table(title="median (least–most) of the repetitions; ratio = gateway ÷ bare")
        table.add_column("figure")
        for heading in (GATEWAY, HTTP_ECHO, "ratio", WEBSOCKET_ECHO, "ratio"):
            table.add_column(heading, justify="right")
        for row in self.rows():
            table.add_row(*row)
        console.print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
