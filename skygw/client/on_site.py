"""What a person at the installation is told about its link, and what that person can do."""

from dataclasses import dataclass
from http import HTTPStatus

from skygw.client.link import LinkEnded
from skygw.protocol.close_codes import RULE_BROKEN_CODES, CloseCode

_UPDATE = "Update this program, and send its log to its developers."
_ASK_THE_HUB = "Ask the hub's administrators."

_BY_CODE: dict[int, str] = {
    **dict.fromkeys((*RULE_BROKEN_CODES, CloseCode.PROTOCOL_VIOLATION), _UPDATE),
    CloseCode.SUPERSEDED: "Look for a second copy of this program on this computer, and stop one of them.",
    CloseCode.REVOKED: "Ask the hub's administrators: nothing here can change it.",
    CloseCode.VERSION_UNSUPPORTED: "Update this program.",
    CloseCode.FORBIDDEN: "Check which installation this computer is configured as, and pair it again.",
    CloseCode.DUPLICATE_INSTANCE: "If the disk was cloned or the computer replaced, ask the hub's administrators to "
    "transfer the installation. If neither, tell them at once: the token may be stolen.",
}
_BY_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Pair the installation again, and check this computer's clock.",
    HTTPStatus.FORBIDDEN: "Check which installation this computer is configured as, and pair it again.",
    HTTPStatus.NOT_FOUND: "Check the gateway's address in this program's settings.",
    HTTPStatus.UPGRADE_REQUIRED: "Update this program; if it is new, look at the proxy in front of the gateway.",
}


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How the link and what is owed to the hub stand, in words to be shown at the installation."""

    connected: bool
    sentence: str
    """One sentence; the gateway's own reason is in it."""
    advice: str | None = None
    """What a person can do; given when waiting alone will not help."""
    coming_back_in_s: float | None = None
    """The wait that is going on, from its beginning."""
    owed: int = 0
    """Reports and files that the hub does not have yet."""
    set_aside: int = 0
    """What the hub refuses for ever; `NodeClient.failed_items` has the reasons."""


def advice(end: LinkEnded) -> str:
    """What to do about an end after which the node comes back late."""
    if end.status is not None:
        return _BY_STATUS.get(end.status, _ASK_THE_HUB)
    return _BY_CODE.get(end.code or 0, _ASK_THE_HUB)
