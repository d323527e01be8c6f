"""The judge finds each kind of wrong in a story that was true before: an acquittal means something."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from skygw.ids import DeviceUid, InstallId, TelescopeUid
from tests.fleet.telemetry import verdicts
from tests.fleet.telemetry.journal import FleetJournal, Line, NodeJournal, Sent, Wanted
from tests.fleet.telemetry.spelling import odd_text, raw_members
from tests.fleet.telemetry.story import Story

MOUNT = UUID(int=7)

Verdict = Callable[[Story], list[str]]


@pytest.fixture
def node() -> NodeJournal:
    """It said seven snapshots of its mount on one link, and wrote five lines, of which its disk took no third."""
    node = NodeJournal(
        install_id=InstallId(uuid4()),
        telescope_uid=TelescopeUid(uuid4()),
        observatory_uid=uuid4(),
        devices={DeviceUid(MOUNT): "mount"},
    )
    node.links.append([Sent("device_snapshot", MOUNT, n) for n in range(1, 8)])
    node.latest["device_snapshot", MOUNT] = 7
    node.lines += [Line("telescope_log", n, None, is_dropped=n == 13) for n in range(11, 16)]
    for n in (*range(1, 8), *range(11, 16)):
        about = {"uid": str(MOUNT)} if n < 10 else {}
        node.texts[n] = odd_text({"node": str(node.install_id), "n": n, **about})
    return node


class Teller:
    """Tells a story as a gateway would."""

    def __init__(self, node: NodeJournal, stream: str, **how: Any) -> None:
        self._node = node
        self._prev: str | None = None
        self._at = 0
        self.story = Story("it", stream, Wanted(), FleetJournal({node.install_id: node}), **how)
        self.sit()

    def sit(self, run: int = 0) -> None:
        self.story.begin(run)
        self._prev = None if self.story.sittings[-1].after == "earliest" else self.story.sittings[-1].after

    def says(self, kind: str, *, skip: int = 1, prev: str | None = None, members: str = "") -> None:
        self._at += skip
        letter = "l" if self.story.is_logged else "s"
        position = f"{letter}{self._at:x}"
        before = prev or self._prev
        quoted = "null" if before is None else f'"{before}"'
        self.story.hear(f'{{"kind":"{kind}","subscription_id":"a","position":"{position}","prev":{quoted}{members}}}')
        self._prev = position

    def tells(self, *numbers: int, text: str | None = None, stale: str | None = None, **how: Any) -> None:
        for n in numbers:
            said = "" if stale is None else f',"stale":"{stale}"'
            data = text or self._node.texts[n]
            members = f',"install_id":"{self._node.install_id}"{said},"data":{data}'
            self.says(self.story.event, members=members, **how)

    def gap(self, reason: str = "conflated", count: int | None = None) -> None:
        counted = "" if count is None else f',"count":{count}'
        about = f',"install_id":"{self._node.install_id}","data":{{"reason":"outbox_full"}}'
        self.says("event_gap", members=f',"reason":"{reason}"{counted}{about}')


@pytest.fixture
def snapshots(node: NodeJournal) -> Teller:
    return Teller(node, "device_snapshot")


@pytest.fixture
def lines(node: NodeJournal) -> Teller:
    return Teller(node, "telescope_log")


OF_ALL: tuple[Verdict, ...] = (
    verdicts.strange_words,
    verdicts.broken_chains,
    verdicts.positions_not_in_order,
    verdicts.changed_bytes,
    verdicts.not_asked_for,
)
OF_SNAPSHOTS: tuple[Verdict, ...] = (
    *OF_ALL,
    verdicts.silent_holes,
    verdicts.miscounted_holes,
    verdicts.went_back,
    verdicts.restarts_not_told,
    verdicts.not_the_latest,
)
OF_LINES: tuple[Verdict, ...] = (
    *OF_ALL,
    verdicts.lines_lost_or_repeated,
    verdicts.holes_not_told,
    verdicts.gaps_nobody_declared,
)


def found(story: Story) -> set[str]:
    """Which verdicts are against it."""
    return {verdict.__name__ for verdict in (OF_LINES if story.is_logged else OF_SNAPSHOTS) if verdict(story)}


def test_what_a_good_gateway_tells_is_acquitted(snapshots: Teller, lines: Teller) -> None:
    snapshots.tells(1)
    snapshots.says("event_live")
    snapshots.tells(2)
    snapshots.gap(count=2)
    snapshots.tells(5)
    snapshots.sit(run=1)
    snapshots.gap("gateway_restarted")
    snapshots.tells(4, stale="gateway_restarted")
    snapshots.tells(7)
    lines.tells(11)
    lines.sit()
    lines.tells(12)
    lines.gap("declared_by_node")
    lines.tells(14, 15)
    lines.says("event_live")
    assert (found(snapshots.story), found(lines.story)) == (set(), set())


def test_a_snapshot_that_was_passed_over_in_silence_is_found(snapshots: Teller) -> None:
    snapshots.tells(1, 2, 4, 5, 6, 7)
    assert found(snapshots.story) == {"silent_holes", "miscounted_holes"}


def test_a_gap_that_counts_too_few_is_found(snapshots: Teller) -> None:
    snapshots.tells(1, 2)
    snapshots.gap(count=1)
    snapshots.tells(5, 6, 7)
    assert found(snapshots.story) == {"miscounted_holes"}


def test_a_snapshot_is_not_missed_that_may_have_been_lost_with_its_link(node: NodeJournal, snapshots: Teller) -> None:
    node.links.append([Sent("device_snapshot", MOUNT, 7)])
    snapshots.tells(1, 2, 7)
    assert found(snapshots.story) == set()


def test_an_older_value_or_a_stale_one_at_the_end_is_found(snapshots: Teller) -> None:
    snapshots.tells(*range(1, 7))
    assert found(snapshots.story) == {"not_the_latest"}
    snapshots.tells(7)
    snapshots.says("event_stale", members=f',"uid":"{MOUNT}","reason":"node_offline"')
    assert found(snapshots.story) == {"not_the_latest"}


def test_a_step_back_is_found(snapshots: Teller) -> None:
    snapshots.tells(*range(1, 7), 2, 7)
    assert "went_back" in found(snapshots.story)


def test_a_restart_that_nobody_told_of_is_found(snapshots: Teller) -> None:
    snapshots.tells(*range(1, 7))
    snapshots.sit(run=1)
    snapshots.tells(7)
    assert found(snapshots.story) == {"restarts_not_told"}


@pytest.mark.parametrize("told", [(11, 12, 15), (11, 12, 14, 14, 15), (11, 14, 12, 15), (11, 12, 14)])
def test_a_line_that_is_missing_repeated_or_out_of_order_is_found(lines: Teller, told: tuple[int, ...]) -> None:
    for n in told:
        if n == 14:
            lines.gap("declared_by_node")
        lines.tells(n)
    assert "lines_lost_or_repeated" in found(lines.story)


def test_a_hole_that_its_node_declared_and_nobody_told_is_found(lines: Teller) -> None:
    lines.tells(11, 12, 14, 15)
    assert found(lines.story) == {"holes_not_told"}


def test_a_gap_that_no_node_declared_is_found(lines: Teller) -> None:
    lines.says("event_gap", members=',"reason":"no_longer_kept"')
    lines.tells(11, 12)
    lines.gap("declared_by_node")
    lines.tells(14, 15)
    assert found(lines.story) == {"gaps_nobody_declared"}


def test_a_broken_chain_and_a_position_twice_are_found(snapshots: Teller, lines: Teller) -> None:
    snapshots.tells(*range(1, 7))
    snapshots.tells(7, prev="s77")
    assert found(snapshots.story) == {"broken_chains"}
    lines.tells(11, 12)
    lines.gap("declared_by_node")
    lines.tells(14)
    lines.tells(15, skip=0)
    assert found(lines.story) == {"positions_not_in_order"}


def test_a_byte_that_changed_on_the_way_is_found(node: NodeJournal, snapshots: Teller) -> None:
    snapshots.tells(*range(1, 7))
    snapshots.tells(7, text=node.texts[7].replace('"', ' "', 1))
    assert found(snapshots.story) == {"changed_bytes"}


def test_what_was_not_asked_for_is_found(node: NodeJournal) -> None:
    other = Teller(node, "device_snapshot")
    other.story.wanted = Wanted(install_id=frozenset({uuid4()}))
    other.tells(7)
    assert "not_asked_for" in found(other.story)


def test_what_the_log_lacks_or_holds_in_another_order_is_found(node: NodeJournal) -> None:
    rows = [("telescope_log", node.texts[n]) for n in (11, 12, 14, 15)]
    rows.insert(2, ("*", "{}"))
    assert verdicts.log_differs(node, rows) == []
    assert verdicts.log_differs(node, rows[1:]) != []
    assert verdicts.log_differs(node, rows[::-1]) != []


def test_an_odd_spelling_says_the_same_and_is_read_to_the_byte() -> None:
    text = odd_text({"a/b": ["\u2028", {"c": None}], "𝄞": "\\"})
    assert raw_members('{"x": 1 , "data" :' + text + "}\n")["data"] == text
    assert text == odd_text({"a/b": ["\u2028", {"c": None}], "𝄞": "\\"})
