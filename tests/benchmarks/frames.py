"""`python -m tests.benchmarks.frames`: what one frame costs to read and to write, beside `json` and plain pydantic.

The three are timed in turns within milliseconds of each other and the least of many turns is taken, because the machine
is seldom idle. No threshold: the ratio is what can be compared from one day to the next.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any

from pydantic import BaseModel, create_model
from rich.console import Console
from rich.table import Table

from skygw.protocol.codec import encode
from skygw.protocol.frame import Frame, Read, shape_of
from tests.wire.samples import DIRECTIONS, FILES, name_of, text_of

TURN_S = 0.0005
"""How long one turn of one of the three takes: short beside what disturbs it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a frame, of ours, of the standard library's `json` and of a pydantic model of the same members."""

    direction: str
    name: str
    size: int
    ours: float
    json: float
    pydantic: float


def plain_twin(model: type[Frame]) -> type[BaseModel]:
    """The frame as a program without our rules would declare it: bare types, opaque members as parsed values."""
    opaque = shape_of(model).opaque
    members: dict[str, Any] = {
        name: (Any if name in opaque else info.annotation, ... if info.is_required() else None)
        for name, info in model.model_fields.items()
    }
    return create_model(f"Plain{model.__name__}", **members)


def large_snapshot(values: int) -> str:
    """A snapshot of a device that says much, in lists of numbers and texts."""
    data = {"uid": "1b4e28ba-2fa1-41d2-883f-0016d3cca427"} | {
        f"axis{number}": [1.25 * number, "tracking", True, None] for number in range(values)
    }
    return json.dumps(
        {
            "kind": "publish_snapshot",
            "stream": "device_snapshot",
            "data": data,
            "observed_at": "2026-11-22T03:14:15.250000Z",
            "max_silence_s": 30.0,
            "live_seq": 5,
        }
    )


def least_us(turns: int, *works: Callable[[], object]) -> list[float]:
    """The least time of one call of each, in microseconds of this process."""
    loops = [max(1, int(TURN_S / max(_took(work, 10) / 10, 1e-7))) for work in works]
    least = [float("inf")] * len(works)
    for _ in range(turns):
        for at, work in enumerate(works):
            least[at] = min(least[at], _took(work, loops[at]) / loops[at])
    return [seconds * 1e6 for seconds in least]


def _took(work: Callable[[], object], loops: int) -> float:
    began = process_time()
    for _ in range(loops):
        work()
    return process_time() - began


def measure(turns: int) -> list[Cost]:
    """Every golden frame, and snapshots of two sizes more."""
    frames = [(path.parent.name, name_of(path), text_of(path)) for path in FILES]
    frames += [("from_node", f"large snapshot, {size} members", large_snapshot(size)) for size in (24, 100)]
    found: list[Cost] = []
    for direction, name, text in frames:
        [read] = DIRECTIONS[direction].decode(text)
        assert isinstance(read, Read), read
        frame: Frame = read.frame
        twin = plain_twin(type(frame))
        plain = twin.model_validate_json(text)
        parsed = json.loads(text)
        reading = least_us(
            turns,
            partial(DIRECTIONS[direction].decode, text),
            partial(json.loads, text),
            partial(twin.model_validate_json, text.encode()),
        )
        writing = least_us(
            turns,
            partial(encode, frame),
            partial(json.dumps, parsed),
            partial(plain.model_dump_json, exclude_none=True),
        )
        found.append(Cost("read", name, len(text), *reading))
        found.append(Cost("write", name, len(text), *writing))
    return found


def show(costs: list[Cost], console: Console) -> None:
    for direction in ("read", "write"):
        table = Table(title=f"{direction}, µs a frame (CPU time)")
        for column in ("frame", "bytes", "ours", "json", "ours ÷ json", "pydantic", "ours ÷ pydantic"):
            table.add_column(column, justify="left" if column == "frame" else "right")
        for cost in costs:
            if cost.direction == direction:
                table.add_row(
                    cost.name,
                    str(cost.size),
                    f"{cost.ours:.1f}",
                    f"{cost.json:.1f}",
                    f"{cost.ours / cost.json:.2f}",
                    f"{cost.pydantic:.1f}",
                    f"{cost.ours / cost.pydantic:.2f}",
                )
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.frames", description=__doc__)
    parser.add_argument("--turns", type=int, default=100, help="how often each is timed; the least counts")
    arguments = parser.parse_args()
    show(measure(arguments.turns), Console(width=None if sys.stdout.isatty() else 120))


if __name__ == "__main__":
    main()
