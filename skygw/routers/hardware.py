"""The hardware graph of an installation: `GET /v1/nodes/me/hardware`, whole, unchanged, or as a difference."""

import json
import re

from quart import Response, request
from quart_trio import QuartTrio

from skygw.errors import NotFound
from skygw.observing.hardware import Graph, GraphChanges, GraphStamp, Hardware
from skygw.protocol.frame import MAX_SEQ
from skygw.routers.gates import NodeGate
from skygw.routers.problems import JSON_TYPE
from skygw.routers.schemas import invalid

_ENTITY_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
"""RFC 9110, section 8.8.3. Weak or strong is the same when a GET asks (section 13.1.2)."""

OURS_ALONE = "private, no-cache"
"""Two installations have different graphs at this path, and each asks every time."""


class HardwareRouter:
    """What the store writes goes out as it is: a graph is never taken apart here."""

    def __init__(self, *, gate: NodeGate, hardware: Hardware) -> None:
        self._gate = gate
        self._hardware = hardware

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule("/v1/nodes/me/hardware", "hardware", self.hardware)

    async def hardware(self) -> Response:
        """`GET /v1/nodes/me/hardware`: the graph, or with `since` what has changed."""
        since = _asked_since()
        principal = await self._gate.verified(request.scope)
        install_id = (await self._gate.admitted(principal)).binding.install_id
        found: Graph | GraphStamp | GraphChanges | None
        if since is None:
            found = await self._hardware.graph(install_id, held=_held_tags())
        else:
            found = await self._hardware.changes(install_id, since)
        match found:
            case None:
                raise NotFound("The hub's records have no hardware of this installation.")
            case GraphStamp():
                return Response(b"", 304, _headers(found))
            case Graph(stamp, resources):
                body = f'{{"root":"{stamp.root}","revision":{stamp.revision},"resources":{resources}}}'
                return Response(body, 200, {"content-type": JSON_TYPE, **_headers(stamp)})
            case GraphChanges(stamp, upserted, removed, complete):
                uids = json.dumps([str(uid) for uid in removed], separators=(",", ":"))
                body = (
                    f'{{"root":"{stamp.root}","revision":{stamp.revision},"complete":{json.dumps(complete)},'
                    f'"upserted":{upserted},"removed":{uids}}}'
                )
                return Response(body, 200, {"content-type": JSON_TYPE, "cache-control": OURS_ALONE})


def _asked_since() -> int | None:
    """Raises `Invalid`."""
    text = request.args.get("since")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_SEQ):
        raise invalid(f"since must be a revision, a number from 0 to {MAX_SEQ}.", "query", "since")
    return int(text)


def _held_tags() -> frozenset[str] | None:
    """What `If-None-Match` names, nothing for a star: whatever there is."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return None if given.strip() == "*" else frozenset(_ENTITY_TAG.findall(given))


def _headers(stamp: GraphStamp) -> dict[str, str]:
    return {"etag": f'"{stamp.tag}"', "cache-control": OURS_ALONE}
