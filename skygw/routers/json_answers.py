"""What the routes of the internal API read of a request and write of an answer, each in one way."""

import json
from collections.abc import Sequence
from math import ceil

from pydantic import BaseModel
from quart import Response, request

from skygw.protocol.frame import write_body
from skygw.routers.problems import JSON_TYPE
from skygw.routers.schemas import MAX_PAGE_SIZE, invalid


async def body_bytes() -> bytes:
    """The request's body, bounded by the app's `MAX_CONTENT_LENGTH` and the listener's body limit."""
    data = await request.get_data(as_text=False)
    return data.encode() if isinstance(data, str) else data


def asked_page(default_size: int) -> tuple[int, int]:
    """`page` from 1, `size` from 1 to `MAX_PAGE_SIZE`. Raises `Invalid`."""
    numbers: list[int] = []
    for name, default, most in (("page", 1, 1_000_000), ("size", default_size, MAX_PAGE_SIZE)):
        text = request.args.get(name)
        if text is None:
            numbers.append(default)
        elif text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= most:
            numbers.append(int(text))
        else:
            raise invalid(f"{name} must be a number from 1 to {most}.", "query", name)
    return numbers[0], numbers[1]


def asked_flag(name: str) -> bool:
    """A query parameter that is `true` or `false`, the latter unless given. Raises `Invalid`."""
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise invalid(f"{name} must be true or false.", "query", name)
    return text == "true"


def json_answer(view: BaseModel, status: int = 200) -> Response:
    return Response(write_body(view), status, {"content-type": JSON_TYPE})


def page_answer(items: Sequence[BaseModel], total: int, page: int, size: int) -> Response:
    written = ",".join(write_body(item) for item in items)
    tail = json.dumps({"total": total, "page": page, "size": size, "pages": ceil(total / size)})
    return Response(f'{{"items":[{written}],{tail[1:]}', 200, {"content-type": JSON_TYPE})
