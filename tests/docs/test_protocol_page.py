"""The protocol's page against the protocol: what somebody writes a node from must not be wrong."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from skygw.protocol.chunks import Chunk, unpack_chunk
from skygw.protocol.codec import Read, from_gateway, from_node
from skygw.protocol.limits import REPORTS_PER_FRAME, Limits
from skygw.protocol.transit import TransitClock

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
TRANSCRIPT = re.findall(r"^([NG]) (.+)$", PAGE, re.MULTILINE)
DIRECTIONS: dict[str, Any] = {"N": from_node, "G": from_gateway}
MODELS = {**from_node.models, **from_gateway.models}


def transcript() -> list[Any]:
    """Frames and chunks in order; a line that is none stays what the codec said of it."""
    items: list[Any] = []
    for side, line in TRANSCRIPT:
        if line[0] in "[{":
            items += [read.frame if isinstance(read, Read) else read for read in DIRECTIONS[side].decode(line)]
        else:
            items.append(unpack_chunk(bytes.fromhex(line)))
    return items


def test_every_line_of_the_session_is_a_frame_or_a_chunk_of_its_side() -> None:
    items = transcript()
    assert len(items) > 20
    assert [item for item in items if not hasattr(item, "kind") and not isinstance(item, Chunk)] == []


def test_the_file_in_the_session_adds_up() -> None:
    items = transcript()
    chunks = [item for item in items if isinstance(item, Chunk)]
    content = b"".join(chunk.payload for chunk in chunks)
    [end] = [item for item in items if getattr(item, "kind", "") == "direct_response_end"]
    assert [chunk.seq for chunk in chunks] == [0, 1]
    assert (end.chunks, end.total_size) == (len(chunks), len(content))
    assert end.sha256 == hashlib.sha256(content).hexdigest()


def test_the_durable_reports_of_the_session_are_numbered_without_holes() -> None:
    sequences = [
        item.seq
        for item in transcript()
        if getattr(item, "kind", "").startswith("publish_") and "seq" in item.model_fields_set
    ]
    assert sequences == list(range(1_201, 1_207))


@pytest.mark.parametrize("kind", MODELS)
def test_every_frame_and_every_member_of_it_is_named(kind: str) -> None:
    assert re.search(rf"`{kind}\b", PAGE) or f'"kind":"{kind}"' in PAGE
    members = set(MODELS[kind].model_fields) - {"kind"}
    assert {name for name in members if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_the_limits_are_those_of_the_program() -> None:
    told = {
        name: int(number.replace(",", ""))
        for name, number in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", PAGE, re.MULTILINE)
    }
    assert told == Limits(reports_per_frame=REPORTS_PER_FRAME).model_dump()


def test_the_worked_example_of_lateness_is_what_the_program_computes() -> None:
    rows = [
        [int(cell.replace(",", "")) for cell in row]
        for row in re.findall(
            r"^\| ([\d,]+) \| `[^|]+ \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", PAGE, re.MULTILINE
        )
    ]
    clock = TransitClock()
    assert len(rows) == 5
    for own, sent, difference, smallest, age in rows:
        computed = clock.age_ms(own_ms=own, sent_ms=sent)
        assert (difference, age, smallest) == (own - sent, round(computed), round(difference - computed))


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_of_the_pages_leads_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), *DOCS.glob("adr/*.md")]:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            aimed = page.parent / path if path else page
            assert aimed.exists(), (page.name, target)
            assert not anchor or anchor in anchors_of(aimed), (page.name, target)
