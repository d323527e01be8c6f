"""The table of `watch`: what it says of each resource, at a given width, and that no node can drive the terminal."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.cells import cell_len

from skygw.cli.live_table import LiveTable, telling
from skygw.client.stream_items import Away, Changed, Gap, Item, Live, Stale
from skygw.protocol.json_text import compact
from tests.fakes.moments import NOW

MOUNT, CAMERA = UUID(int=1), UUID(int=2)
LIVE = Live(position="s1", message="")


def changed(uid: UUID | None, *, heard_at: float | None = 0.0, stale: str | None = None, **data: Any) -> Changed:
    return Changed(
        stream="device_snapshot",
        text=compact.encode({"uid": str(uid), **data}),
        install_id=uuid4(),
        observed_at=NOW,
        received_at=NOW,
        heard_at=heard_at,
        stale=stale,
        max_silence_s=None,
        position="s1",
        message="",
    )


def gap(reason: str, count: int | None = None) -> Gap:
    return Gap(from_=None, to="s1", count=count, reason=reason, position="s1", message="")


def drawn(
    *items: Item, now: float = 0.0, width: int = 100, height: int = 24, fields: tuple[str, ...] | None = None
) -> list[str]:
    table = LiveTable("device_snapshot", fields=fields)
    for item in items:
        table.take(item, now=0.0)
    return table.lines(now=now, width=width, height=height)


def test_a_resource_has_a_line_with_its_name_its_age_and_what_is_most_telling() -> None:
    lines = drawn(changed(MOUNT, name="North mount", ra_hours=5.25, state="tracking", site_uid="x"), LIVE, now=12.4)

    assert lines == [
        "device_snapshot · live · 1 resources · 0 stale · 0 gaps",
        "RESOURCE     AGE      STALE  DETAILS",
        "North mount  12 s            state=tracking ra_hours=5.25",
    ]


def test_a_resource_without_a_name_is_shown_by_its_uid_and_later_values_replace_the_earlier() -> None:
    lines = drawn(changed(MOUNT, n=1), changed(CAMERA, n=2), changed(MOUNT, n=3))

    assert [line.split() for line in lines[2:]] == [[str(MOUNT), "0", "s", "n=3"], [str(CAMERA), "0", "s", "n=2"]]


def test_chosen_fields_are_columns() -> None:
    lines = drawn(changed(MOUNT, name="m", a=1.5, b=[1, 2], c=True), fields=("a", "b", "c", "d"))

    assert lines[1].split() == ["RESOURCE", "AGE", "STALE", "a", "b", "c", "d"]
    assert lines[2].split() == ["m", "0", "s", "1.5", "[1,2]", "true"]


def test_a_stale_value_says_so_with_the_reason_until_it_is_said_again() -> None:
    stale = Stale(uid=MOUNT, reason="node_offline", last_observed_at=NOW, position="s2", message="")

    assert "  node_offline" in drawn(changed(MOUNT), stale)[2]
    assert "1 stale" in drawn(changed(MOUNT), stale)[0]
    assert "node_offline" not in drawn(changed(MOUNT), stale, changed(MOUNT))[2]
    assert "  gateway_restarted" in drawn(changed(MOUNT, stale="gateway_restarted"))[2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (99.0, "99 s"), (101.0, "2 min"), (5_999.0, "100 min"), (7_200.0, "2 h")]
)
def test_ages_count_up(seconds: float, text: str) -> None:
    assert drawn(changed(MOUNT), now=seconds)[2].endswith(f"  {text}")


def test_an_age_that_nobody_knows_is_not_made_up() -> None:
    assert drawn(changed(MOUNT, heard_at=None))[2].endswith("  ?")


def test_the_head_tells_whether_this_is_the_present() -> None:
    away = Away(reason="The gateway is gone.", again_in_s=9.0)

    assert "· connecting ·" in drawn()[0]
    assert "· replaying ·" in drawn(changed(MOUNT))[0]
    assert "· live ·" in drawn(changed(MOUNT), LIVE)[0]
    assert "· away, again in 6 s ·" in drawn(LIVE, away, now=3.0)[0]
    assert drawn(LIVE, away)[0].endswith("The gateway is gone.")
    assert "· replaying ·" in drawn(LIVE, away, gap("resumed"))[0]
    assert "· live ·" in drawn(LIVE, away, gap("resumed"), LIVE)[0]


def test_gaps_are_counted_apart_from_what_was_only_conflated() -> None:
    head = drawn(gap("lost"), gap("resumed"), gap("conflated", 7), gap("conflated", 3))[0]

    assert "2 gaps" in head
    assert "10 passed over" in head


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    item = changed(MOUNT, name="望遠鏡" * 10, state="x" * 300, stale="silent")
    lines = drawn(item, Away(reason="y" * 300, again_in_s=1.0), width=width)

    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("height", [3, 4, 10])
def test_there_are_no_more_lines_than_the_terminal_has_and_what_is_hidden_is_counted(height: int) -> None:
    lines = drawn(*(changed(UUID(int=number)) for number in range(50)), height=height)

    assert len(lines) == height
    assert lines[-1] == f"… and {50 - (height - 3)} more"


def test_nothing_a_node_says_drives_the_terminal() -> None:
    evil = "\x1b[2J\u202e\n\x9b"
    data: dict[str, Any] = {"name": evil, evil: evil, "list": [evil]}
    item = changed(MOUNT, stale=evil, **data)
    lines = drawn(item, fields=("list", evil)) + drawn(item) + drawn(Away(reason=evil, again_in_s=1.0))

    assert not set("".join(lines)) & {"\x1b", "\u202e", "\n", "\x9b"}


def test_colour_changes_nothing_but_colour() -> None:
    table = LiveTable("device_snapshot")
    table.take(changed(MOUNT, stale="silent"), now=0.0)
    plain = table.lines(now=0.0, width=80, height=24)
    coloured = table.lines(now=0.0, width=80, height=24, colour=True)

    assert any("\x1b[" in line for line in coloured)
    assert not any("\x1b" in line for line in plain)
    assert [line.replace("\x1b[1m", "").replace("\x1b[33m", "").replace("\x1b[0m", "") for line in coloured] == plain


def test_a_payload_that_cannot_be_read_is_said_to_be_so() -> None:
    item = changed(MOUNT)
    object.__setattr__(item, "text", "{")

    assert "unreadable=" in drawn(item)[2]


def test_of_a_payload_the_most_telling_comes_first_and_ids_are_left_out() -> None:
    data = {"uid": "u", "deviceUid": "d", "name": "n", "temperature": -10.0, "nested": {"a": 1}, "state": "cooling"}

    assert telling(data) == "state=cooling temperature=-10"
