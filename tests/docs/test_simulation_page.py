"""The page on simulated installations against what they understand."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from skygw.sim.blueprint import FILTERS
from skygw.sim.commands import Command, read_command
from skygw.sim.fleet import draw_nodes
from skygw.sim.line_profiles import KEYS, line_of

PAGE = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
COMMANDS: tuple[type[BaseModel], ...] = get_args(get_args(Command)[0])


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading row, in order."""
    body = PAGE.partition(f"| {heading} |")[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_names_every_command_with_its_arguments() -> None:
    told = {name: quoted(arguments) for names, arguments in rows("`command_type`") for name in quoted(names)}
    known = {
        get_args(fields.pop("command_type").annotation)[0]: [
            f"{name}{'' if field.is_required() else '?'}" for name, field in fields.items()
        ]
        for fields in ({**command.model_fields} for command in COMMANDS)
    }
    told["mount.offset_relative"] = told["mount.offset_relative"][:2]  # what an axis is called comes behind it
    assert told == known


@pytest.mark.parametrize("key", ["target", "offset_pattern"])
def test_the_examples_on_the_page_are_understood(key: str) -> None:
    kind = {"target": "position_type", "offset_pattern": "pattern_type"}[key]
    examples = re.findall(rf'`(\{{"{kind}"[^`]+\}})`', PAGE)
    assert len(examples) == 2
    for example in examples:
        target = '{"position_type":"horizontal","alt_deg":60,"az_deg":180}'
        asked = f'{{"command_type":"mount.track","target":{target},"{key}":{example}}}'
        read_command(json.loads(asked))


def test_the_filters_on_the_page_are_those_of_the_wheel() -> None:
    assert f"(1 to {len(FILTERS)}: {', '.join(held.name for held in FILTERS)})" in PAGE
    assert f"`position` (0 to {len(FILTERS) - 1})" in PAGE


def test_the_sizes_of_sites_on_the_page_are_those_that_are_drawn() -> None:
    told = re.search(r"With three telescopes, (.+)\.\n", PAGE)
    assert told is not None
    examples = re.findall(r"(\d+) (?:installations )?are (?:sites of )?(\d and \d)", told[1])
    assert len(examples) == 3
    for count, sizes in examples:
        drawn = [len(site.telescopes) for site in draw_nodes("docs", int(count), telescopes_per_site=3)]
        assert drawn == [int(size) for size in sizes.split(" and ")]


def test_the_limits_of_a_lines_keys_are_those_on_the_page() -> None:
    told = {key: limits for keys, _, *limits in rows("key | | from | to") for key in quoted(keys)}
    assert set(told) == set(KEYS)
    for key, limits in told.items():
        least, most = (float(limit.replace(",", "").replace("a year", "31536000")) for limit in limits)
        line_of(f"{key}={least}")
        line_of(f"{key}={most}")
        with pytest.raises(ValueError, match=f"{key} is a number from {limits[0]} to"):
            line_of(f"{key}={most * 1.01}")
