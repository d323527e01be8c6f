"""The figures of a run: medians with their spread, and the ratios of ours to the others."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table

OURS = "skygw"


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
    load_busy: float = 0.0
    """The largest part of its own core that the load generator used during any load."""

    def add(self, figure: str, subject: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(subject, []).append(value)

    def add_load(self, what: str, subject: str, answer: dict[str, float]) -> None:
        """Everything the load generator said of one load."""
        self.add(f"{what}, per second", subject, answer["per_s"])
        if "p50_ms" in answer:
            self.add(f"{what}, p50 ms", subject, answer["p50_ms"])
            self.add(f"{what}, p99 ms", subject, answer["p99_ms"])
        self.add(f"{what}, server CPU µs each", subject, answer["cpu_us"])
        self.load_busy = max(self.load_busy, answer.get("load_busy", 0.0))

    def ratio(self, figure: str, other: str) -> Spread | None:
        """Ours ÷ theirs, repetition by repetition, because both are measured within seconds of each other. `None` where
        one of the two has no such figure, or nothing was counted.
        """
        subjects = self.values[figure]
        pairs = zip(subjects.get(OURS, []), subjects.get(other, []), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return Spread.of(ratios) if ratios and other != OURS else None

    def json(self) -> dict[str, object]:
        figures: dict[str, object] = {
            figure: {
                subject: {
                    "median": median(values),
                    "all": values,
                    **({"ratio": vars(ratio)} if (ratio := self.ratio(figure, subject)) else {}),
                }
                for subject, values in subjects.items()
            }
            for figure, subjects in self.values.items()
        }
        return {"figures": figures, "load_busy": self.load_busy}

    def rows(self) -> Iterator[list[str]]:
        """One for each figure and subject: figure, subject, value, ratio."""
        for figure, subjects in self.values.items():
            for number, (subject, values) in enumerate(subjects.items()):
                ratio = self.ratio(figure, subject)
                yield ["" if number else figure, subject, str(Spread.of(values)), str(ratio or "")]

    def markdown(self) -> str:
        """A table for every set of servers that were measured together, as docs/performance.md has them."""
        tables: dict[tuple[str, ...], list[str]] = {}
        for figure, subjects in self.values.items():
            others = [subject for subject in subjects if subject != OURS]
            cells = [figure, *([str(Spread.of(subjects[OURS]))] if OURS in subjects else [])]
            for other in others:
                ratio = self.ratio(figure, other)
                cells += [str(Spread.of(subjects[other])), *([str(ratio)] if OURS in subjects else [])]
            tables.setdefault(tuple(subjects), []).append(f"| {' | '.join(cells)} |")
        return "\n\n".join("\n".join([*_markdown_head(subjects), *rows]) for subjects, rows in tables.items())

    def show(self, console: Console) -> None:
        table = Table(title=f"median (least–most) of the repetitions; ratio = {OURS} ÷ the other")
        table.add_column("figure")
        table.add_column("server")
        table.add_column("value", justify="right")
        table.add_column("ratio", justify="right")
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        console.print(f"The load generator used at most {self.load_busy:.0%} of its core.")


def _markdown_head(subjects: tuple[str, ...]) -> list[str]:
    columns = ["figure"]
    for subject in subjects:
        columns += [subject, "ratio"] if subject != OURS and OURS in subjects else [subject]
    return [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
