"""The judge: each verdict is a list of sentences about what was wrong, and an empty one is an acquittal."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from tests.fleet.telemetry.journal import FleetJournal, NodeJournal, Sent
from tests.fleet.telemetry.story import Message, Story

KNOWN = {"event_live", "event_gap", "event_stale", "event_subscription_ended"}


def strange_words(story: Story) -> list[str]:
    """Whatever is neither of the stream nor of the four kinds that tell how it goes."""
    return [
        f"{story.name}: {message.text}"
        for sitting in story.sittings
        for message in sitting.messages
        if message.kind not in {*KNOWN, story.event}
    ]


def broken_chains(story: Story) -> list[str]:
    """Each message names the position before it; the first where it was asked to go on, or nothing."""
    found: list[str] = []
    for number, sitting in enumerate(story.sittings):
        before = None if sitting.after == "earliest" else sitting.after
        for place, message in enumerate(sitting.messages):
            where = f"{story.name}, sitting {number}, message {place}"
            if message.kind == "event_subscription_ended":
                if message.position != before:
                    found.append(f"{where}: ended at {message.position} after {before}")
                continue
            from_nothing = place == 0 and not story.is_logged and message.prev is None
            if message.prev != before and not from_nothing:
                found.append(f"{where}: {message.kind} says {message.prev} was before it, and it was {before}")
            before = message.position
    return found


def positions_not_in_order(story: Story) -> list[str]:
    """Events have growing positions, over all sittings of who resumes; whatever is said between never goes back."""
    found: list[str] = []
    last = last_event = -1
    for number, sitting in enumerate(story.sittings):
        if not story.resumes:
            last = last_event = -1
        for message in sitting.messages:
            if message.position is None:
                continue
            at = _number(message.position)
            is_event = story.is_logged and message.kind == story.event
            if at < last or (is_event and at <= last_event):
                found.append(f"{story.name}, sitting {number}: {message.kind} at {message.position} after {last}")
            last = max(last, at)
            last_event = max(last_event, at) if is_event else last_event
    return found


def _number(position: str) -> int:
    return int(position[1:], 16 if position[0] == "s" else 10)


def changed_bytes(story: Story) -> list[str]:
    return [f"{story.name}: {message.text}" for message in _all(story) if not message.is_verbatim]


def not_asked_for(story: Story) -> list[str]:
    """What the filter does not let through by the records, whatever the payload says."""
    found: list[str] = []
    for message in _all(story):
        if message.kind != story.event or message.node is None:
            continue
        node = next(each for each in story.journal if each.install_id == message.node)
        if not story.wanted.fits(node, message.uid):
            found.append(f"{story.name}: {message.n} of {node.install_id} is not what was asked for")
    return found


def _all(story: Story) -> Iterator[Message]:
    for sitting in story.sittings:
        yield from sitting.messages


# Logged streams.


def lines_lost_or_repeated(story: Story) -> list[str]:
    """Per node each line once and in order, from the first to the last; of who begins anew, in each sitting what lies
    between its first and its last.
    """
    runs = [list(_all(story))] if story.resumes else [sitting.messages for sitting in story.sittings]
    found: list[str] = []
    for node in story.journal:
        expected = node.expected(story.stream, story.wanted)
        for number, messages in enumerate(runs):
            told = [each.n for each in messages if each.kind == story.event and each.node == node.install_id]
            due = expected
            if not story.resumes:
                due = [n for n in expected if told and told[0] is not None and told[0] <= n <= max(_numbers(told))]
            if told != due:
                found.append(f"{story.name}, {number}: of {node.install_id} {_difference(_numbers(told), due)}")
    return found


def _numbers(told: Iterable[int | None]) -> list[int]:
    return [n for n in told if n is not None]


def _difference(told: list[int], due: list[int]) -> str:
    twice = [n for n, times in Counter(told).items() if times > 1]
    missing, unknown = sorted({*due} - {*told}), sorted({*told} - {*due})
    back = [second for first, second in pairwise(told) if second < first]
    return (
        f"{len(told)} of {len(due)} lines: {len(missing)} missing {missing[:5]}, {len(twice)} twice {twice[:5]}, "
        f"{len(unknown)} nobody wrote {unknown[:5]}, {len(back)} out of order {back[:5]}"
    )


def holes_not_told(story: Story) -> list[str]:
    """Where a node's disk was full, the gap it declared stands between the lines before and behind."""
    found: list[str] = []
    for node in story.journal:
        dropped = iter(node.dropped())
        hole = next(dropped, None)
        last, is_told = 0, False
        for message in _all(story) if story.resumes else ():
            if message.is_gap and message.node == node.install_id and message.reason == "declared_by_node":
                is_told = True
            if message.kind != story.event or message.node != node.install_id or message.n is None:
                continue
            if hole is not None and last < hole < message.n and not is_told:
                found.append(f"{story.name}: nobody told of {hole} of {node.install_id} before {message.n}")
            while hole is not None and hole < message.n:
                hole = next(dropped, None)
            last, is_told = message.n, False
    return found


def gaps_nobody_declared(story: Story) -> list[str]:
    """In a log that keeps everything here there are no other gaps than those of full disks."""
    return [
        f"{story.name}: {message.text}"
        for message in _all(story)
        if message.is_gap and '"outbox_full"' not in message.text
    ]


# Retained streams.


class _Missed(NamedTuple):
    uid: UUID
    numbers: list[int]
    is_told: bool
    sitting: int
    began: int
    """The sitting of the neighbour before."""


def _missed(story: Story) -> Iterator[_Missed]:
    """Snapshots that the gateway took and this subscriber did not get, with whether an `event_gap` stands between the
    neighbours. What left a node on one link before a snapshot that came through has come through as well.
    """
    places: dict[tuple[UUID, int], list[tuple[list[Sent], int]]] = defaultdict(list)
    for node in story.journal:
        for link in node.links:
            of_resource: dict[UUID, list[Sent]] = defaultdict(list)
            for sent in link:
                if sent.stream == story.stream:
                    of_resource[sent.uid].append(sent)
                    places[sent.uid, sent.n].append((of_resource[sent.uid], len(of_resource[sent.uid]) - 1))
    last: dict[UUID, tuple[int, int, int]] = {}
    gaps = 0
    for number, sitting in enumerate(story.sittings):
        if not story.resumes:
            last.clear()
        for message in sitting.messages:
            gaps += message.is_gap
            if message.kind != story.event or message.uid is None or message.n is None:
                continue
            before = last.get(message.uid)
            if before is not None and message.n <= before[0]:
                continue
            last[message.uid] = (message.n, gaps, number)
            if before is None:
                continue
            seen, gaps_then, began = before
            # Which of the links it came by is not known: only what went before it on each of them has come for sure.
            missing = set[int].intersection(
                *(
                    {sent.n for sent in link[:place] if seen < sent.n < message.n}
                    for link, place in places[message.uid, message.n]
                )
            )
            if missing:
                yield _Missed(message.uid, sorted(missing), gaps > gaps_then, number, began)


def silent_holes(story: Story) -> list[str]:
    return [
        f"{story.name}, sitting {missed.sitting}: {missed.numbers} of {missed.uid} are missing and nobody told"
        for missed in _missed(story)
        if not missed.is_told
    ]


def miscounted_holes(story: Story) -> list[str]:
    """What was passed over within a sitting is no more than its gaps say."""
    passed_over = Counter[int]()
    for missed in _missed(story):
        if missed.began == missed.sitting:
            passed_over[missed.sitting] += len(missed.numbers)
    return [
        f"{story.name}, sitting {number}: {passed_over[number]} passed over, and {counted} told of"
        for number, sitting in enumerate(story.sittings)
        if (counted := sum(each.count or 0 for each in sitting.messages)) < passed_over[number]
    ]


def went_back(story: Story) -> list[str]:
    """An older snapshot than before is told only by a gateway that has just begun, and as one of before."""
    found: list[str] = []
    newest: dict[UUID, int] = {}
    for number, sitting in enumerate(story.sittings):
        for message in sitting.messages:
            if message.kind != story.event or message.uid is None or message.n is None:
                continue
            if message.n < newest.get(message.uid, 0) and message.stale != "gateway_restarted":
                found.append(f"{story.name}, sitting {number}: {message.n} of {message.uid}, which was further on")
            newest[message.uid] = max(message.n, newest.get(message.uid, 0))
    return found


def restarts_not_told(story: Story) -> list[str]:
    """Whoever resumes at a gateway that began later is told so before all else: what it holds may be lost there."""
    return [
        f"{story.name}: run {sitting.run} after {before.run} began with {sitting.messages[0]}"
        for before, sitting in pairwise([each for each in story.sittings if each.messages])
        if story.resumes and before.run != sitting.run and sitting.messages[0].reason != "gateway_restarted"
    ]


def not_the_latest(story: Story) -> list[str]:
    """What is held at the end is what the nodes said last, of every resource that was asked for, and not stale."""
    latest = story.journal.latest(story.stream, story.wanted)
    found = [f"{story.name}: holds {uid}, which is nothing it asked for" for uid in story.held.keys() - latest.keys()]
    for uid, (node, n) in latest.items():
        held = story.held.get(uid)
        if held is None or held.n != n or held.stale is not None:
            found.append(f"{story.name}: holds {held} of {uid}, and {node.install_id} said {n} last")
    return found


# What is kept.


def log_differs(node: NodeJournal, rows: list[tuple[str, str]]) -> list[str]:
    """`rows` are the stream and the text of all that the hub's log holds of this node, in the order of positions."""
    found: list[str] = []
    for stream in ("telescope_log", "node_event"):
        due = [node.texts.get(line.n) for line in node.lines if line.stream == stream and not line.is_dropped]
        kept = [text for of_stream, text in rows if of_stream == stream]
        if kept != due:
            same = next((at for at, pair in enumerate(zip(kept, due, strict=False)) if pair[0] != pair[1]), None)
            found.append(f"{node.install_id} {stream}: {len(kept)} kept and {len(due)} written, the same up to {same}")
    strange = {stream for stream, _ in rows} - {"telescope_log", "node_event", "*"}
    return found + [f"{node.install_id}: the log holds {stream}" for stream in sorted(strange)]


def refused(journal: FleetJournal) -> list[str]:
    return [f"{node.install_id}: {text}" for node in journal for text in node.refusals]
