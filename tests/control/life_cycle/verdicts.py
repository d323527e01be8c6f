"""What may not be, whatever went wrong: judged from the devices, the wire and what people were told.

Nothing here reads what the gateway wrote into its logs or thinks of itself; its ledger is one more thing it said.
"""

from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

from skygw.control.ledger import ENDS, NEVER_WRITTEN, CommandState
from skygw.errors import Outcome
from skygw.ids import CommandId
from skygw.protocol.safing import is_safing
from tests.control.life_cycle.places import CAMERA, MOUNT, NAMES, NODE_OF, ROOF, TELESCOPE
from tests.control.life_cycle.story import NEVER_CAME, Claim, Motion, Refusal, Row, Story, Submission

S = CommandState
REACH_S = 1.0
"""What a stop may take from the wire to the device of a node that is in order."""
ROUNDING_S = 0.1
"""Milliseconds are whole, and a node forgives clocks that drift (protocol/transit.py)."""


def wrong_with(story: Story) -> list[str]:
    """Everything that may not be, as sentences."""
    return [wrong for law in LAWS for wrong in law(story)]


# What devices did.


def never_two_effects(story: Story) -> Iterator[str]:
    """Of one id, over all programs and processes there were."""
    moved: defaultdict[CommandId, list[float]] = defaultdict(list)
    for motion in story.motions:
        moved[motion.command_id].append(motion.began)
    called: defaultdict[CommandId, list[float]] = defaultdict(list)
    for call in story.calls:
        called[call.command_id].append(call.at)
    for command_id, times in moved.items():
        if len(times) > 1:
            yield f"{command_id} moved something {len(times)} times, at {times}."
    for command_id, times in called.items():
        if len(times) > 1:
            yield f"{command_id} was given to a handler {len(times)} times, at {times}."


def never_under_a_stale_fence(story: Story) -> Iterator[str]:
    """No motion begins under a fence when its node has heard of a higher one."""
    for motion in story.motions:
        for told in story.heard:
            if told.command_id != motion.command_id or told.at > motion.began or told.fence is None:
                continue
            node = NAMES[NODE_OF[motion.device]]
            higher = [
                heard.fence
                for heard in story.fences
                if heard.node == node
                and heard.uid == told.fence_uid
                and heard.at < motion.began
                and heard.fence > told.fence
            ]
            if higher:
                yield (
                    f"{motion.command_id} began at {motion.began:.3f} under the fence {told.fence} when its node had "
                    f"heard of {max(higher)}."
                )


def never_without_a_lease(story: Story) -> Iterator[str]:
    """What moves was asked for by who had been granted the lease it needs and was not told of its end."""
    if story.restored_at:
        return  # then a lease may hold that was given up: until a node knows better
    for motion in story.motions:
        asked = [one for one in story.submissions if one.command_id == motion.command_id]
        if not any(_had_the_lease(one, motion.device, story) for one in asked):
            yield f"{motion.command_id} moved {_name(motion.device)} for nobody who had its lease."


def _had_the_lease(asked: Submission, device: UUID, story: Story) -> bool:
    needed = ROOF if device == ROOF else TELESCOPE
    return any(
        grant.lease == asked.lease
        and (grant.uid == needed or device == ROOF)  # all telescopes under it are as good
        and grant.granted_at <= asked.answered_at
        and asked.asked_at <= min(grant.until, grant.given_up_at)
        for grant in story.grants
    )


def never_too_late(story: Story) -> Iterator[str]:
    """Nothing begins after the time of who asked for it, as far as a node can know how old a frame is."""
    for motion in story.motions:
        latest = max(
            (one.asked_at + one.timeout_s for one in story.submissions if one.command_id == motion.command_id),
            default=0.0,
        )
        heard = [one for one in story.heard if one.command_id == motion.command_id and one.at <= motion.began]
        latest += max((one.fastest_s for one in heard), default=0.0) + ROUNDING_S
        if motion.began > latest:
            yield f"{motion.command_id} began at {motion.began:.3f}, and its time was over at {latest:.3f}."


def never_two_movers(story: Story) -> Iterator[str]:
    """No device moves for two at once, and none begins to move under a lower fence than it was moved under before."""
    fences = {told.command_id: (told.fence_uid, told.fence) for told in story.heard if told.fence is not None}
    for number, first in enumerate(story.motions):
        for second in story.motions[number + 1 :]:
            if first.device != second.device:
                continue
            if second.began < first.over_at:
                yield f"{_name(first.device)} moved for {first.command_id} and for {second.command_id} at once."
            (uid, before), (other, after) = (
                fences.get(first.command_id, (None, None)),
                fences.get(second.command_id, (None, None)),
            )
            if uid != other or before is None or after is None or story.restored_at:
                continue
            if first.began < second.began and before > after:
                yield f"{_name(first.device)} moved under the fence {before} and after that under {after}."


def stops_arrive(story: Story) -> Iterator[str]:
    """A stop that was taken over a link to which nothing happened reaches its devices."""
    for asked in story.submissions:
        answer = asked.answer
        if not is_safing(asked.kind) or not isinstance(answer, Claim) or answer.state is S.EXPIRED:
            continue
        if asked.is_duplicate or asked.command_id in story.cancels:
            continue
        node = "roof" if asked.target == ROOF else "telescope"
        up = [
            line
            for line in story.lines
            if line.node == node and line.up_at <= asked.asked_at and line.troubled_at > asked.answered_at + REACH_S
        ]
        troubled = any(line.node == node and line.troubled_at <= asked.asked_at + REACH_S for line in story.lines)
        if not up or troubled:
            continue
        stopped = {one.device for one in story.stoppings if one.command_id == asked.command_id}
        for device in _meant(asked):
            if device not in stopped:
                yield f"The stop {asked.command_id} did not reach {_name(device)}."


def nothing_begins_behind_a_stop(story: Story) -> Iterator[str]:
    """What was on the wire before a stop, of the same family, does not begin after it."""
    put: dict[tuple[CommandId, str], int] = {}
    for one in story.heard:
        if one.put:
            put.setdefault((one.command_id, one.node), one.put)
    for stop in story.stoppings:
        if stop.command_id is None or not _is_stop(stop.command_id, story):
            continue
        node = NAMES[NODE_OF[stop.device]]
        for motion in story.motions:
            mine, its = put.get((motion.command_id, node)), put.get((stop.command_id, node))
            if motion.device != stop.device or motion.began <= stop.at or mine is None or its is None:
                continue
            if mine < its:
                yield f"{motion.command_id} began behind the stop {stop.command_id} that came after it."


def _is_stop(command_id: CommandId, story: Story) -> bool:
    return any(one.command_id == command_id and is_safing(one.kind) for one in story.submissions)


def _another_went_out(command_id: CommandId, story: Story) -> bool:
    """A stop is on its way before anybody looks whose id it has."""
    return any(
        one.command_id == command_id
        and one.is_another
        and isinstance(one.answer, Refusal)
        and one.answer.outcome is Outcome.UNKNOWN
        for one in story.submissions
    )


def _meant(asked: Submission) -> tuple[UUID, ...]:
    if asked.kind.startswith("telescope."):
        return MOUNT, CAMERA
    return ({"mount": MOUNT, "camera": CAMERA, "enclosure": ROOF}[asked.kind.partition(".")[0]],)


# What people were told.


def no_answer_claims_more_than_is_known(story: Story) -> Iterator[str]:
    """Neither when it was given nor by what came after."""
    motions = {motion.command_id: motion for motion in story.motions}
    for claim in story.claims:
        is_forgotten = claim.is_of_no_record or any(claim.at <= at for at in story.restored_at)
        if is_forgotten and _brought_later(claim, story):
            continue
        if _was_forgotten(claim, story):
            continue
        yield from _judged(claim, motions.get(claim.command_id), story)
        if claim.receipt is not None:
            yield from _judged_receipt(claim, motions.get(claim.command_id), is_stop=_is_stop(claim.command_id, story))


def _was_forgotten(said: Claim | Row, story: Story) -> bool:
    """Whether the ledger forgot a command that had been sent, and nothing came of it since: to whoever does not ask its
    node, it is a new one.
    """
    sent = [at for (_, command_id), puts in story.put.items() if command_id == said.command_id for at, _ in puts]
    is_nothing = said.state in NEVER_WRITTEN or (said.state, said.canceled) == (S.CANCELED, "before_start")
    return is_nothing and any(first < at for first in sent for at in story.restored_at)


def _brought_later(claim: Claim, story: Story) -> bool:
    """Whether somebody brought the command anew after that, and was not refused: of what was said nothing is stored."""
    return any(
        one.command_id == claim.command_id and one.asked_at >= claim.at and not isinstance(one.answer, Refusal)
        for one in story.submissions
    )


def _judged(claim: Claim, motion: Motion | None, story: Story) -> Iterator[str]:
    said = f"{claim.command_id} was said to be {claim.state} at {claim.at:.3f}"
    has_begun = motion is not None and motion.began <= claim.at
    is_stop = _is_stop(claim.command_id, story)
    match claim.state:
        case S.WRITTEN:
            if not any(
                at <= claim.at
                for (_, command_id), puts in story.put.items()
                if command_id == claim.command_id
                for at, _ in puts
            ):
                yield f"{said}, and nothing had been written."
        case S.ACCEPTED | S.RUNNING:
            if not any(one.command_id == claim.command_id and one.at <= claim.at for one in story.heard):
                yield f"{said}, and its node had not heard of it."
        case S.COMPLETED if is_stop:
            if not any(one.command_id == claim.command_id and one.at <= claim.at for one in story.stoppings):
                yield f"{said}, and it had stopped nothing."
        case S.COMPLETED:
            if motion is None or motion.was_stopped or motion.over_at > claim.at:
                yield f"{said}, and what it moved had not arrived."
        case S.FAILED:
            yield from _judged_failure(claim, story, said)
        case S.REJECTED:
            if motion is not None or any(call.command_id == claim.command_id and is_stop for call in story.calls):
                yield f"{said}, and it moved something."
        case S.CANCELED if claim.canceled == "interrupted":
            if claim.read_back and (motion is None or motion.over_at > claim.at) and not is_stop:
                yield f"{said}, interrupted, and what it moved did not stand."
        case S.CANCELED:
            if motion is not None:
                yield f"{said}, {claim.canceled}, and it moved something."
        case S.EXPIRED:
            if has_begun:
                yield f"{said}, and it had moved something."


def _judged_failure(claim: Claim, story: Story, said: str) -> Iterator[str]:
    """A node whose program ended before it wrote it down does not know better."""
    for returned in story.returned:
        if returned.command_id != claim.command_id or returned.status != S.COMPLETED.value:
            continue
        if not any(returned.at <= at <= claim.at for _, at in story.node_deaths):
            yield f"{said}, and its handler had found it completed."


def _judged_receipt(claim: Claim, motion: Motion | None, *, is_stop: bool) -> Iterator[str]:
    said = f"{claim.command_id} had the receipt {claim.receipt} at {claim.at:.3f}"
    match claim.receipt:
        case "canceled_before_start":
            if motion is not None:
                yield f"{said}, and it moved something."
        case "interrupted":
            if not is_stop and (motion is None or motion.over_at > claim.at):
                yield f"{said}, and what it moved did not stand."
            if not claim.read_back:
                yield f"{said} without a proof."
        case "finished_anyway":
            if claim.state is S.COMPLETED and motion is not None and (motion.was_stopped or motion.over_at > claim.at):
                yield f"{said}, and it had not finished."


def what_is_not_sent_does_nothing(story: Story) -> Iterator[str]:
    """Where everybody who brought a command was told that it was not sent, it did nothing."""
    asked: defaultdict[CommandId, list[Submission]] = defaultdict(list)
    for one in story.submissions:
        asked[one.command_id].append(one)
    done = {motion.command_id for motion in story.motions} | {
        stop.command_id for stop in story.stoppings if stop.command_id is not None and _is_stop(stop.command_id, story)
    }
    for command_id in done:
        answers = [one.answer for one in asked[command_id]]
        if all(isinstance(answer, Refusal) and answer.outcome is Outcome.NOT_SENT for answer in answers):
            yield f"{command_id} did something, and everybody was told that it was not sent."


def ends_stay(story: Story) -> Iterator[str]:
    """What was said to be over is said to be over in the same way for good, but for what was never written."""
    if story.restored_at:
        return  # the ledger forgot what it had said
    ended: dict[CommandId, Claim] = {}
    died_at = max(story.gateway_deaths, default=0.0)
    for claim in sorted(story.claims, key=lambda claim: claim.at):
        if claim.is_of_no_record:
            continue
        before = ended.get(claim.command_id)
        if claim.state not in ENDS and _is_stop(claim.command_id, story):
            continue  # a repeat of a stop waits for no ledger to be told what it knows
        is_untold = _is_stop(claim.command_id, story) or (before is not None and before.canceled == "before_start")
        if before is not None and before.at <= died_at <= claim.at and is_untold:
            continue  # nothing is spooled here: what a ledger that was away had not heard of died with the process
        if before is not None and (before.state, before.canceled) != (claim.state, claim.canceled):
            yield f"{claim.command_id} was {before.state} at {before.at:.3f}, and {claim.state} at {claim.at:.3f}."
        if claim.state in ENDS and claim.state is not S.EXPIRED:
            ended[claim.command_id] = claim
    for row in story.rows:
        yield from _judged_steps(row)


def _judged_steps(row: Row) -> Iterator[str]:
    for before, after in zip(row.steps, row.steps[1:], strict=False):
        if before in ENDS and (before, after) != (S.EXPIRED, S.RECEIVED):
            yield f"{row.command_id} left its end: it was {before}, and then {after}."
    if row.steps[-1] is not row.state:
        yield f"{row.command_id} is {row.state}, and its last step was {row.steps[-1]}."


# What the ledger has in the end.


def the_ledger_has_what_the_node_did(story: Story) -> Iterator[str]:
    """When all is quiet and everybody back, each command has an end or is unknown for a reason, and it is true."""
    motions = {motion.command_id: motion for motion in story.motions}
    rows = {row.command_id: row for row in story.rows}
    for row in story.rows:
        if _was_forgotten(row, story) or (row.command_id in story.cancels and _is_stop(row.command_id, story)):
            continue  # a stop that was taken back is sent again by a process that does not ask whether it was
        claim = Claim(row.command_id, _end_of_time(story), row.state, row.canceled, row.read_back)
        yield from _judged(claim, motions.get(row.command_id), story)
        known = story.outcomes.get((row.node, row.command_id))
        if row.state is S.UNKNOWN and row.detail is None:
            yield f"{row.command_id} is unknown for no reason."
        if known == NEVER_CAME and row.state in (S.UNKNOWN, S.REJECTED, *NEVER_WRITTEN):
            continue  # of a stop, and where the node may have forgotten, it is not taken for an end
        if row.state in (S.UNKNOWN, *_UNDER_WAY) and known is not None:
            yield f"{row.command_id} is {row.state}, and its node knows that it is {known}."
        elif row.state in _UNDER_WAY:
            yield f"{row.command_id} is {row.state} when all is quiet."
        elif known == S.CANCELED and row.state in NEVER_WRITTEN:
            continue  # a cancel found it nowhere, and the node remembers not to run it
        elif row.state in NEVER_WRITTEN and _another_went_out(row.command_id, story):
            continue  # what the node did under this id was the other's, whose caller was told that it is not known
        elif known is not None and row.state is not S.UNKNOWN and known != row.state.value:
            yield f"{row.command_id} is {row.state}, and its node says that it is {known}."
    for command_id in motions:
        if command_id not in rows and not story.restored_at:
            yield f"{command_id} moved something, and the ledger does not know it."


_UNDER_WAY = (S.RECEIVED, S.WRITTEN, S.ACCEPTED, S.RUNNING)


def _end_of_time(story: Story) -> float:
    return max((claim.at for claim in story.claims), default=0.0) + max(
        (motion.over_at for motion in story.motions), default=0.0
    )


def _name(device: UUID) -> str:
    return {MOUNT.int: "the mount", CAMERA.int: "the camera", ROOF.int: "the roof"}[device.int]


LAWS = (
    never_two_effects,
    never_under_a_stale_fence,
    never_without_a_lease,
    never_too_late,
    never_two_movers,
    stops_arrive,
    nothing_begins_behind_a_stop,
    no_answer_claims_more_than_is_known,
    what_is_not_sent_does_nothing,
    ends_stay,
    the_ledger_has_what_the_node_did,
)
