"""The latest snapshot of every resource: which one is latest, and how much one node can make us hold."""

from dataclasses import dataclass
from uuid import uuid4

import pytest

from skygw.ids import Epoch, InstallId
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream
from skygw.telemetry import retained as room
from skygw.telemetry.retained import MAX_BYTES_PER_INSTALLATION, MAX_RESOURCES_PER_INSTALLATION, RetainedSnapshots
from tests.fakes.moments import NOW


@dataclass(frozen=True)
class Node:
    install_id: InstallId


HERE = Node(InstallId(uuid4()))


def snapshot(
    live_seq: int, data: object = None, stream: SnapshotStream = SnapshotStream.DEVICE_SNAPSHOT
) -> PublishSnapshot:
    return PublishSnapshot(
        stream=stream,
        data=Opaque.of({"uid": "mount", "n": live_seq} if data is None else data),
        observed_at=NOW,
        max_silence_s=30,
        live_seq=live_seq,
    )


@pytest.mark.parametrize(
    ("held", "offered", "is_newer"),
    [
        ((1, 1), (1, 2), True),
        ((1, 2), (1, 1), False),
        ((1, 2), (1, 2), False),
        ((1, 900), (2, 1), True),
        ((2, 1), (1, 900), False),
    ],
)
def test_the_newest_is_told_by_epoch_and_then_by_live_seq(
    held: tuple[int, int], offered: tuple[int, int], *, is_newer: bool
) -> None:
    retained = RetainedSnapshots()
    retained.offer(HERE, Epoch(held[0]), snapshot(held[1], {"uid": "mount", "it": "held"}))
    retained.offer(HERE, Epoch(offered[0]), snapshot(offered[1], {"uid": "mount", "it": "offered"}))
    (kept,) = retained.of(HERE.install_id)
    assert kept.order == (offered if is_newer else held)
    assert ("offered" in kept.data) is is_newer


def test_what_is_held_is_the_text_as_it_came() -> None:
    retained = RetainedSnapshots()
    retained.offer(HERE, Epoch(1), snapshot(1, {"uid": "mount", "ra": 1.5}))
    (kept,) = retained.of(HERE.install_id)
    assert (kept.uid, kept.data, kept.observed_at, kept.max_silence_s) == (
        "mount",
        '{"uid":"mount","ra":1.5}',
        NOW,
        30,
    )


def test_streams_and_installations_do_not_mix() -> None:
    retained, elsewhere = RetainedSnapshots(), Node(InstallId(uuid4()))
    retained.offer(HERE, Epoch(1), snapshot(1))
    retained.offer(HERE, Epoch(1), snapshot(2, stream=SnapshotStream.TELESCOPE_SNAPSHOT))
    retained.offer(elsewhere, Epoch(1), snapshot(3))
    assert len(list(retained.of(HERE.install_id))) == 2
    assert len(list(retained.of(elsewhere.install_id))) == 1
    assert list(retained.of(InstallId(uuid4()))) == []


@pytest.mark.parametrize("data", [{}, {"uid": 7}, {"uid": ""}, {"uid": "x" * 65}])
def test_a_snapshot_of_nothing_is_refused(data: dict[str, object]) -> None:
    retained = RetainedSnapshots()
    unwanted = retained.offer(HERE, Epoch(1), snapshot(1, data))
    assert list(retained.of(HERE.install_id)) == []
    assert unwanted is not None
    assert unwanted.reason == "invalid"


def test_resources_beyond_the_limit_are_refused_and_those_held_go_on() -> None:
    retained = RetainedSnapshots()
    answers = [
        retained.offer(HERE, Epoch(1), snapshot(1, {"uid": str(number)}))
        for number in range(MAX_RESOURCES_PER_INSTALLATION + 5)
    ]
    assert len(list(retained.of(HERE.install_id))) == MAX_RESOURCES_PER_INSTALLATION
    assert [answer.reason for answer in answers if answer] == ["quota_exceeded"] * 5
    retained.offer(HERE, Epoch(1), snapshot(2, {"uid": "0", "n": 2}))
    assert next(retained.of(HERE.install_id)).order == (1, 2)


def test_bytes_beyond_the_limit_are_refused_until_something_shrinks() -> None:
    retained = RetainedSnapshots()
    size = 60_000
    fits = MAX_BYTES_PER_INSTALLATION // (size + 50)
    answers = [
        retained.offer(HERE, Epoch(1), snapshot(1, {"uid": str(number), "text": "x" * size}))
        for number in range(fits + 10)
    ]
    held = list(retained.of(HERE.install_id))
    assert sum(len(kept.data) for kept in held) <= MAX_BYTES_PER_INSTALLATION
    assert any(answers)
    retained.offer(HERE, Epoch(1), snapshot(2, {"uid": "0"}))
    retained.offer(HERE, Epoch(1), snapshot(1, {"uid": "new", "text": "x" * (size // 2)}))
    assert "new" in [kept.uid for kept in retained.of(HERE.install_id)]


def test_beyond_the_limit_the_installation_that_was_silent_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MAX_INSTALLATIONS", 2)
    retained = RetainedSnapshots()
    silent, talking, new = (Node(InstallId(uuid4())) for _ in range(3))
    for node in (talking, silent):
        retained.offer(node, Epoch(1), snapshot(1))
    retained.offer(talking, Epoch(1), snapshot(2))
    retained.offer(new, Epoch(1), snapshot(1))
    assert [len(list(retained.of(node.install_id))) for node in (silent, talking, new)] == [0, 1, 1]
    retained.offer(silent, Epoch(1), snapshot(3))
    assert len(list(retained.of(silent.install_id))) == 1
