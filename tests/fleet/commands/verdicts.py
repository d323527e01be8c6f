"""The judge: device journals beside what callers were told. Each verdict is a list of what was wrong; empty acquits."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from skygw.sim.journal import EFFECTS, Action, Entry
from tests.fleet.commands.story import ENDS, SENT, Answer, Ask, Story

TOLERANCE = timedelta(seconds=1.0)
"""Between a caller's clock and a device's: what a busy machine takes from the one to the other."""
TROUBLED = timedelta(seconds=15.0)
"""How long a line, a node or a gateway may be away once it was troubled."""

REACHED = frozenset(
    {Action.SLEW_REACHED, Action.FOCUSER_REACHED, Action.FILTER_WHEEL_REACHED, Action.ROOF_OPENED, Action.ROOF_CLOSED}
)
STOPPED = frozenset(
    {
        Action.SLEW_STOPPED,
        Action.FOCUSER_STOPPED,
        Action.FILTER_WHEEL_STOPPED,
        Action.ROOF_STOPPED,
        Action.STOP_RECEIVED,
    }
)
DONE = REACHED | {Action.UNPARKED}

Journals = Sequence[Sequence[Entry]]
"""One for each site, by its number."""


def acted_twice(journals: Journals) -> list[str]:
    """A command here begins one thing at most."""
    found = []
    for command_id, lines in _by_command(journals).items():
        begun = [line for line in lines if line.action in EFFECTS]
        if len(begun) > 1:
            found.append(f"{command_id} began {[(line.number, line.action.value) for line in begun]}")
    return found


def stale_fences(story: Story, journals: Journals) -> list[str]:
    """Whoever lost a telescope or a roof begins nothing there after whoever got it."""
    found = []
    newest: dict[str, tuple[int, str]] = {}
    for line, ask in _effects(story, journals):
        if ask.fence is None:
            found.append(f"{ask.command_id}: {ask.command_type} moved something, under no lease")
            continue
        fence, mover = newest.get(ask.fence.uid, (0, ""))
        if ask.fence.number < fence:
            found.append(f"{line.number}: {ask.command_id} under {ask.fence.number}, after {mover} under {fence}")
        newest[ask.fence.uid] = max((fence, mover), (ask.fence.number, ask.command_id))
    return found


def begun_late(story: Story, journals: Journals) -> list[str]:
    """Nothing begins when its caller has given it up."""
    return [
        f"{ask.command_id} began at {line.wall_time}, and had until {ask.deadline_at}"
        for line, ask in _effects(story, journals)
        if ask.deadline_at is not None and _at(line) > ask.deadline_at + TOLERANCE
    ]


def two_movers(journals: Journals) -> list[str]:
    """A device that travels for one command is not set in motion by another."""
    found = []
    for journal in journals:
        travels: dict[str | None, Entry] = {}
        for line in journal:
            if line.action is Action.JOURNAL_REOPENED:
                travels.clear()  # the hardware of a simulated site ends with its program
            elif line.action in REACHED | STOPPED:
                travels.pop(line.device_uid, None)
            elif line.action in EFFECTS and line.action is not Action.UNPARK_STARTED:
                if line.device_uid in travels:
                    found.append(
                        f"{line.number}: {line.command_id} moved what {travels[line.device_uid].command_id} does"
                    )
                travels[line.device_uid] = line
    return found


def unknown_movers(story: Story, journals: Journals) -> list[str]:
    """Whatever moves was asked for by somebody, or is the site's own."""
    return [
        f"{line.number}: {line.command_id} moved {line.device_uid}, and nobody asked for it"
        for journal in journals
        for line in journal
        if line.action in EFFECTS and line.command_id is not None and line.command_id not in story.asks
    ]


def claims_beyond_the_journal(story: Story, journals: Journals) -> list[str]:
    """No answer says more than what happened, and no end is taken back."""
    lines = _by_command(journals)
    found: list[str] = []
    for ask in story.asks.values():
        mine = lines[ask.command_id]
        begun = any(line.action in EFFECTS for line in mine)
        if begun and not ask.may_have_gone:
            found.append(f"{ask.command_id} was never taken, by all answers, and moved something")
        for answer in ask.answers:
            about = f"{ask.command_id} ({ask.command_type}) was told by {answer.what} at {answer.at}"
            if answer.what == "cancel":
                said = answer.body.get("receipt")
                canceled, proved = said == "canceled_before_start", said == "interrupted"
                completed = said == "finished_anyway"
            else:
                state, how = answer.state, answer.body.get("canceled")
                canceled = state == "rejected" or (state == "canceled" and how == "before_start")
                proved, completed = how == "interrupted", state == "completed"
            if canceled and begun:
                found.append(f"{about} that nothing was done: {_said(mine)}")
            if proved and begun and not _stood(mine, journals[story.site_of[ask.device_uid]]):
                found.append(f"{about} that it was interrupted, and it goes on: {_said(mine)}")
            if completed and not _is_done(ask, mine, begun=begun):
                found.append(f"{about} that it was done: {_said(mine)}")
            if answer.state in ENDS and answer.what != "cancel" and not _is_still(story, ask, answer):
                found.append(f"{about} that it ended {answer.state}, and then {ask.answers[-1]}")
    return found


def stops_that_were_lost(story: Story, journals: Journals) -> list[str]:
    """A stop that was answered as sent reached its device, or there was no link."""
    lines = _by_command(journals)
    return [
        f"{ask.command_id} ({ask.command_type}) was {answer.state}, and its device never heard of it"
        for ask in story.asks.values()
        for answer in ask.answers
        if ask.is_stop
        and not lines[ask.command_id]
        and answer.what == "post"
        and answer.state in SENT
        and not _was_troubled(story, ask, answer.at)
    ]


def without_an_end(story: Story) -> list[str]:
    """In the end each command has ended, or is unknown because something was in the way, or was never known."""
    found = []
    for ask in story.asks.values():
        state = ask.final.get("state")
        if state is None:
            taken = [answer for answer in ask.answers if answer.what == "post" and answer.status in (200, 202)]
            if not all(_is_still(story, ask, answer) for answer in taken):
                found.append(f"{ask.command_id} was taken, and is not known any more")
        elif state not in ENDS and not (ask.is_unsettled and _was_ever_troubled(story, ask)):
            found.append(f"{ask.command_id} ({ask.command_type}) is {state} for ever")
    return found


def _effects(story: Story, journals: Journals) -> Iterator[tuple[Entry, Ask]]:
    for journal in journals:
        for line in journal:
            if line.action in EFFECTS and line.command_id in story.asks:
                yield line, story.asks[line.command_id]


def _by_command(journals: Journals) -> defaultdict[str, list[Entry]]:
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for journal in journals:
        for line in journal:
            if line.command_id is not None:
                found[line.command_id].append(line)
    return found


def _is_done(ask: Ask, mine: Sequence[Entry], *, begun: bool) -> bool:
    """What was there already needs nothing begun."""
    if ask.is_stop:
        return any(line.action in STOPPED for line in mine)
    return not begun or any(line.action in DONE for line in mine)


def _stood(mine: Sequence[Entry], journal: Sequence[Entry]) -> bool:
    """Whether the device it set in motion was stopped after that, by whomever, or had just arrived."""
    [begun] = [line for line in mine if line.action in EFFECTS]
    return begun.action is Action.UNPARK_STARTED or any(
        line.action in STOPPED | REACHED and line.device_uid == begun.device_uid and line.number > begun.number
        for line in journal
    )


def _is_still(story: Story, ask: Ask, answer: Answer) -> bool:
    """What expired unwritten may have been asked for again. What was taken back unsent while there was no ledger is
    forgotten by a gateway that is killed: then it may be known no more, and may not have moved.
    """
    if answer.state in (ask.final.get("state"), "expired"):
        return True
    taken_back = answer.body.get("canceled") == "before_start"
    return taken_back and not ask.final and _was_everything_troubled(story, answer.at)


def _was_everything_troubled(story: Story, at: datetime) -> bool:
    """Whether the gateway or its database was killed then."""
    return any(each.site is None and abs(each.at - at) < TROUBLED for each in story.troubles)


def _was_troubled(story: Story, ask: Ask, at: datetime) -> bool:
    site = story.site_of[ask.device_uid]
    return any(each.site in (None, site) and abs(each.at - at) < TROUBLED for each in story.troubles)


def _was_ever_troubled(story: Story, ask: Ask) -> bool:
    return any(_was_troubled(story, ask, answer.at) for answer in ask.answers)


def _at(line: Entry) -> datetime:
    return datetime.fromisoformat(line.wall_time)


def _said(lines: Iterable[Entry]) -> str:
    return str([(line.number, line.action.value, line.cause) for line in lines])
