"""What is the matter with a node, decided from the gateway's own record of it: one sentence and the next action.

Pure. The most telling fact wins: a refusal after the last close, then the close, then what ails a living session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MANY_QUEUED_BYTES = 1024 * 1024
MANY_UNACKED = 512
"""Half of what a node may have unacknowledged: past this, the ledger or the node is falling behind."""
SLOW_ROUND_TRIP_S = 5.0


@dataclass(frozen=True)
class Finding:
    """`healthy` says that there is nothing to do."""

    sentence: str
    action: str
    healthy: bool = False


_RENEW = "Renew the node's token: pair it again, or check that it can reach the issuer."
_PATIENCE = "Nothing, if it is back within a minute; otherwise look at the site's uplink and power."

AFTER_CLOSE: Mapping[int, tuple[str, str]] = {
    1000: ("closed its socket in good order", "Start the node's program again, if it was not stopped on purpose."),
    1001: ("went away: its program or its machine was stopped", "Start the node's program again."),
    1011: ("was cut by an error of the gateway's", "Look for ERROR lines in the gateway's log at that time."),
    1012: ("was cut by a restart", _PATIENCE),
    4001: ("was sent away by a gateway that shut down, and has not come to this one", _PATIENCE),
    4002: ("fell silent and was cut", "Look at the site's uplink and power; the node comes back by itself."),
    4003: (
        "took too slowly what was sent to it and was cut",
        "Look at the site's uplink, and at who asks it for much at once (“skygw nodes”).",
    ),
    4004: ("let its token expire", _RENEW),
    4005: ("sent too much too fast and was cut", "Look in the node's log for what it repeats."),
    4500: (
        "broke the protocol and was cut",
        "Compare the versions of node and gateway, and look in the node's log for the frame before.",
    ),
    4501: (
        "was superseded by a newer connection of itself",
        "See that only one copy of the node's program runs on its machine.",
    ),
    4502: ("was revoked", "Reactivate the installation at the hub, if that was not meant."),
    4503: ("speaks a version this gateway does not", "Update the node's program."),
    4504: ("is not allowed to connect", "Check its token's scope and the installation it is bound to."),
    4505: (
        "was refused because another machine holds its installation",
        "If the machine was replaced, accept the new one with POST /internal/nodes/{id}/transfer; if not, "
        "somebody runs a copy of its disk or has its token: revoke it.",
    ),
}
"""By close code; a node that was refused with one of these reads the same."""

AFTER_HTTP_REFUSAL: Mapping[int, tuple[str, str]] = {
    401: ("is refused because its token does not hold", _RENEW),
    403: AFTER_CLOSE[4504],
    404: ("asks for a path that does not exist", "Correct the gateway's address in the node's settings."),
    426: ("does not ask for a protocol this gateway speaks", "Update the node's program."),
    429: ("connects too often", "Look in the node's log for why it cannot stay."),
    503: ("is refused because the gateway cannot take it now", "Ask “skygw doctor” about the gateway's database."),
}


def explain(node: Mapping[str, Any]) -> Finding:
    """Decide from a record of `GET /internal/nodes/{id}`. Members that are missing count as unremarkable."""
    if node.get("connected"):
        return _explain_connected(node)
    close, refusal = node.get("lastClose"), node.get("lastRefusal")
    if refusal and (not close or _when(refusal) >= _when(close)):
        code = refusal.get("code")
        said, action = AFTER_HTTP_REFUSAL.get(code) or AFTER_CLOSE.get(code) or ("is refused", "Read the reason given.")
        return Finding(
            f"{_name(node)} {said} (from {refusal.get('address') or 'an unknown address'}, {_told(refusal)}).", action
        )
    if close:
        known = AFTER_CLOSE.get(close.get("code"))
        said, action = known or ("lost its connection without a goodbye", _PATIENCE)
        return Finding(f"{_name(node)} {said} ({_told(close)}).", action)
    return Finding(
        f"{_name(node)} has not connected since this gateway started.",
        "See that its program runs, that its settings name this gateway, and that the site is on the net.",
    )


def _explain_connected(node: Mapping[str, Any]) -> Finding:
    name = _name(node)
    queued = sum((node.get("queueBytes") or {}).values())
    stale = _stale_streams(node.get("streams") or ())
    if node.get("tokenInGrace"):
        return Finding(
            f"{name} is connected on an expired token, for telemetry and safing only, because the issuer is away.",
            "Bring the token issuer back; nothing needs doing on site.",
        )
    if queued > MANY_QUEUED_BYTES:
        return Finding(
            f"{name} is connected, but {queued} bytes wait for it: its link is slower than what is asked of it.",
            "Ask it for less at once, or look at the site's uplink.",
        )
    if (node.get("unackedReports") or 0) > MANY_UNACKED:
        return Finding(
            f"{name} is connected, but {node['unackedReports']} of its reports are not committed yet.",
            "Ask “skygw doctor” about the gateway's database.",
        )
    if (node.get("roundTripS") or 0.0) > SLOW_ROUND_TRIP_S:
        return Finding(
            f"{name} is connected, but answers only after {node['roundTripS']:.1f} s.",
            "Look at the site's uplink and at the load of the node's machine.",
        )
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        return Finding(
            f"{name} is connected, but {stale[0]} is silent for longer than it promised{more}.",
            "Look at the device and its driver on site: the link is not the cause.",
        )
    return Finding(f"{name} is connected and nothing is wrong that the gateway can see.", "Nothing.", healthy=True)


def _stale_streams(streams: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{stream.get('stream')} of {stream.get('uid')}"
        for stream in streams
        if stream.get("maxSilenceS") is not None and stream.get("ageS", 0.0) > stream["maxSilenceS"]
    ]


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("name") or node.get("uid") or "The node")


def _told(event: Mapping[str, Any]) -> str:
    code = event.get("code")
    parts = (
        f"code {code}" if code is not None else "no code",
        event.get("reason") or "no reason given",
        event.get("at"),
    )
    return ", ".join(str(part) for part in parts if part)


def _when(event: Mapping[str, Any]) -> float:
    """Unix seconds; the beginning of time where it is missing."""
    at = event.get("at")
    return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else 0.0
