"""What a route is, as the table of routes and the documents made of it know it."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from skygw.auth.principals import Scope
from skygw.routers.schemas import MAX_PAGE_SIZE


class Access(StrEnum):
    """What a request must show beside coming from an allowed network."""

    NOTHING = "nothing"
    NODE = "node"
    SERVICE = "service"


@dataclass(frozen=True)
class Answer:
    """`body` is the model of a JSON body, the media type of another one, or None for an empty one."""

    status: int
    says: str
    body: type[BaseModel] | str | None = None


@dataclass(frozen=True)
class Query:
    """A query parameter; `schema` is its JSON Schema."""

    name: str
    says: str
    schema: dict[str, object]


@dataclass(frozen=True)
class Route:
    """One method on one path, the path as the routing table spells it."""

    method: str
    path: str
    name: str
    says: str
    answers: tuple[Answer, ...]
    access: Access = Access.NOTHING
    scope: Scope | None = None
    body: type[BaseModel] | None = None
    body_required: bool = True
    query: tuple[Query, ...] = ()
    refusals: tuple[int, ...] = ()
    """Statuses of problems beyond those every route with the same access has."""


PAGE = (
    Query("page", "Counts from 1", {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1}),
    Query("size", "Items per page", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": 50}),
)
