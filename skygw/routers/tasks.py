"""The tasks of an installation, as it asks for them and reports on them (contract §4)."""

from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from quart import Response, request
from quart_trio import QuartTrio

from skygw.observing.task_service import TaskService
from skygw.observing.tasks import Observer, OrderBy, TaskQuery, TaskStatus, TaskType
from skygw.protocol.frame import Timestamp
from skygw.routers.gates import NodeGate
from skygw.routers.json_answers import asked_page, body_bytes, json_answer, page_answer
from skygw.routers.problems import JSON_TYPE
from skygw.routers.schemas import invalid, read_body
from skygw.routers.task_bodies import (
    RANGES,
    ClaimBody,
    CompleteBody,
    ProgressBody,
    ResultsBody,
    claimed_view,
    task_view,
)

_MOMENT: TypeAdapter[datetime] = TypeAdapter(Timestamp)


class TaskRouter:
    """Every route shows an installation the tasks of its own telescopes; anything else is 404."""

    def __init__(self, *, gate: NodeGate, tasks: TaskService) -> None:
        self._gate = gate
        self._tasks = tasks

    def add_to(self, app: QuartTrio) -> None:
        add = app.add_url_rule
        add("/v1/nodes/me/tasks", "task_page", self.page)
        add("/v1/nodes/me/tasks/claim", "task_claim", self.claim, methods=["POST"])
        add("/v1/nodes/me/tasks/<task_id>", "task", self.task)
        add("/v1/nodes/me/tasks/<task_id>/release", "task_release", self.release, methods=["POST"])
        add("/v1/nodes/me/tasks/<task_id>/progress", "task_progress", self.progress, methods=["POST"])
        add("/v1/nodes/me/tasks/<task_id>/results", "task_results", self.results, methods=["POST"])
        add("/v1/nodes/me/tasks/<task_id>/complete", "task_complete", self.complete, methods=["POST"])

    async def _observer(self) -> Observer:
        installation = await self._gate.admitted(await self._gate.verified(request.scope))
        binding = installation.binding
        return Observer(binding.install_id, binding.observatory_uid, tuple(sorted(binding.telescopes)))

    async def page(self) -> Response:
        """`GET /v1/nodes/me/tasks`; filters `status`, `taskType` and ranges, `orderBy`, `order`."""
        observer = await self._observer()
        page, size = asked_page(50)
        query = TaskQuery(
            page=page,
            size=size,
            statuses=_asked_words("status", TaskStatus),
            task_types=_asked_words("taskType", TaskType),
            ranges={
                order: (_asked_moment(f"{name}After"), _asked_moment(f"{name}Before")) for name, order in RANGES.items()
            },
            order_by=_asked_order(),
            descending=_asked_choice("order", ("asc", "desc")) == "desc",
        )
        found, total = await self._tasks.page(observer, query)
        return page_answer([task_view(task) for task in found], total, page, size)

    async def task(self, task_id: str) -> Response:
        """`GET /v1/nodes/me/tasks/{id}`, by uid or the hub's integer key."""
        return json_answer(task_view(await self._tasks.get(await self._observer(), task_id)))

    async def claim(self) -> Response:
        """`POST /v1/nodes/me/tasks/claim`."""
        observer = await self._observer()
        body = read_body(ClaimBody, await body_bytes())
        claimed = await self._tasks.claim(observer, body.report(), at_most=body.max)
        return json_answer(claimed_view(body.claim_uid, claimed))

    async def release(self, task_id: str) -> Response:
        """`POST /v1/nodes/me/tasks/{id}/release`; again is no mistake."""
        return json_answer(task_view(await self._tasks.release(await self._observer(), task_id)))

    async def progress(self, task_id: str) -> Response:
        """`POST /v1/nodes/me/tasks/{id}/progress`."""
        observer = await self._observer()
        body = read_body(ProgressBody, await body_bytes())
        return _stored(await self._tasks.progress(observer, task_id, body.report()))

    async def results(self, task_id: str) -> Response:
        """`POST /v1/nodes/me/tasks/{id}/results`."""
        observer = await self._observer()
        body = read_body(ResultsBody, await body_bytes())
        return _stored(await self._tasks.results(observer, task_id, body.report()))

    async def complete(self, task_id: str) -> Response:
        """`POST /v1/nodes/me/tasks/{id}/complete`."""
        observer = await self._observer()
        body = read_body(CompleteBody, await body_bytes())
        return _stored(await self._tasks.complete(observer, task_id, body.report()))


def _stored(answer: str) -> Response:
    return Response(answer, 200, {"content-type": JSON_TYPE})


WordT = TypeVar("WordT", bound=StrEnum)


def _asked_words(name: str, words: type[WordT]) -> tuple[WordT, ...] | None:
    """A comma list, which may stand several times. Raises `Invalid`."""
    if name not in request.args:
        return None
    said = [word for text in request.args.getlist(name) for word in text.split(",")]
    known = {word.value: word for word in words}
    for word in said:
        if word not in known:
            raise invalid(f"{name} must be of {', '.join(known)}.", "query", name)
    return tuple(known[word] for word in said)


def _asked_moment(name: str) -> datetime | None:
    if name not in request.args:
        return None
    try:
        return _MOMENT.validate_python(request.args[name])
    except ValidationError:
        raise invalid(f"{name} must be an RFC 3339 time with an offset.", "query", name) from None


def _asked_choice(name: str, choices: tuple[str, ...]) -> str:
    """The first one unless given."""
    text = request.args.get(name, choices[0])
    if text not in choices:
        raise invalid(f"{name} must be one of {', '.join(choices)}.", "query", name)
    return text


def _asked_order() -> OrderBy:
    names = {to_camel(order.value): order for order in OrderBy}
    return names[_asked_choice("orderBy", tuple(names))]
