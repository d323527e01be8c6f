"""Every frame of both directions as it lies on the wire: changing one of these files breaks somebody's node."""

from pathlib import Path

import pytest

from skygw.protocol.codec import Read, encode
from tests.wire.samples import DIRECTIONS, FILES, kind_of, name_of, text_of


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_read_as_its_kind_and_written_back_byte_for_byte(path: Path) -> None:
    [read] = DIRECTIONS[path.parent.name].decode(text_of(path))
    assert isinstance(read, Read), read
    assert read.frame.kind == kind_of(path)
    assert encode(read.frame) == text_of(path)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_kind_has_a_golden_frame_and_every_golden_frame_a_kind(direction: str) -> None:
    kinds = {kind_of(path) for path in FILES if path.parent.name == direction}
    assert kinds == set(DIRECTIONS[direction].models)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_member_of_every_kind_is_shown_in_a_golden_frame(direction: str) -> None:
    shown: dict[str, set[str]] = {}
    for path in FILES:
        if path.parent.name == direction:
            [read] = DIRECTIONS[direction].decode(text_of(path))
            shown.setdefault(kind_of(path), set()).update(read.frame.model_fields_set)
    # The gateway's clock is in its own pings only.
    not_of_this_side = {("from_node", "ping", "t_ms")}
    missing = {
        (direction, kind, member)
        for kind, model in DIRECTIONS[direction].models.items()
        for member in set(model.model_fields) - shown[kind]
    }
    assert missing - not_of_this_side == set()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_golden_frames_of_a_direction_can_travel_in_one_message(direction: str) -> None:
    texts = [text_of(path) for path in FILES if path.parent.name == direction]
    read = DIRECTIONS[direction].decode("[" + ",".join(texts) + "]")
    assert [one.text for one in read] == texts
