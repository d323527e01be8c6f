"""A history as lines for a person: what was planned, and what happened, in order."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from uuid import UUID

from tests.control.life_cycle.history import History
from tests.control.life_cycle.places import CAMERA, MOUNT, OTHER_TELESCOPE, ROOF, TELESCOPE
from tests.control.life_cycle.story import Story

_NAMES: dict[UUID, str] = {
    MOUNT: "mount",
    CAMERA: "camera",
    ROOF: "roof",
    TELESCOPE: "telescope",
    OTHER_TELESCOPE: "other telescope",
}


def told(history: History, story: Story) -> str:
    """The plan, and everything that was noticed."""
    names = _NAMES | {order.command_id: f"order {number}" for number, order in enumerate(history.orders)}
    lines = [f"seed {history.seed}, {history.latency_s} s each way, brakes {history.brake_s} s, obeys: {history.obeys}"]
    lines += [f"order {number}: {_said(order, names)}" for number, order in enumerate(history.orders)]
    lines += [f"lease {number}: {_said(lease, names)}" for number, lease in enumerate(history.leases)]
    lines += [f"step: {_said(step, names)}" for step in history.steps]
    happened = sorted(_happened(story), key=lambda one: one[0])
    lines += [f"{at:9.3f} {_said(what, names)}" for at, what in happened]
    lines += [_said(row, names) for row in story.rows]
    for (node, command_id), end in story.outcomes.items():
        lines.append(f"{names.get(command_id, command_id)}: {end} on the disk of the {node} node")
    return "\n".join(lines)


def _happened(story: Story) -> Iterator[tuple[float, object]]:
    for motion in story.motions:
        yield motion.began, motion
    for group in (story.stoppings, story.calls, story.returned, story.heard, story.fences, story.claims):
        for one in group:
            yield one.at, one
    for submission in story.submissions:
        yield submission.asked_at, submission
    for grant in story.grants:
        yield grant.granted_at, grant
    for line in story.lines:
        yield line.up_at, line
    for (node, command_id), puts in story.put.items():
        for at, number in puts:
            yield at, ("put", node, command_id, number)
    for name, at in story.node_deaths:
        yield at, ("the program ends", name)
    for at in story.gateway_deaths:
        yield at, ("the gateway ends",)
    for at in story.restored_at:
        yield at, ("the database is an older one",)


def _said(what: object, names: dict[UUID, str]) -> str:
    if is_dataclass(what):
        members = ((field.name, getattr(what, field.name), field.default) for field in fields(what))
        said = " ".join(f"{name}={_said(value, names)}" for name, value, default in members if value != default)
        return f"{type(what).__name__}({said})"
    match what:
        case UUID():
            return names.get(what, str(what)[:8])
        case Enum():
            return str(what.value)
        case float():
            return f"{what:.3f}"
        case tuple():
            return "(" + ", ".join(_said(one, names) for one in what) + ")"
    return str(what)
