"""Tells a node which of its snapshots are not taken: sparingly, because whoever errs errs in every snapshot."""

from collections.abc import Callable

import trio

from skygw.protocol.frame import Frame
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import Error, ErrorCode
from skygw.resources import Unwanted

SAID_AGAIN_S = 10.0
"""How long the same is not said again."""

AT_MOST = 100
"""Different ones said in that time; so many uids of at most `MAX_UID` characters are remembered."""

MAX_UID = 64

_CODES = {
    "not_found": ErrorCode.NOT_FOUND,
    "forbidden": ErrorCode.FORBIDDEN,
    "quota_exceeded": ErrorCode.CONFLICT,
}
"""Every other reason is `invalid`."""


class SnapshotRefusals:
    """One per session. `metrics` counts all of them."""

    def __init__(self, *, say: Callable[[Frame], None], count: Callable[[str], None]) -> None:
        self._say = say
        self._count = count
        self._said: dict[tuple[str, str | None], float] = {}
        self._unsaid = 0

    def tell(self, unwanted: Unwanted, *, stream: str | None, uid: object) -> None:
        """Answers with `error`, or leaves it for the next one to tell how many there were meanwhile."""
        self._count(unwanted.reason)
        named = uid[:MAX_UID] if isinstance(uid, str) else None
        if not self._is_news((unwanted.reason, named)):
            self._unsaid += 1
            return
        details = {"reason": unwanted.reason, "stream": stream, "uid": named, "unsaid": self._unsaid}
        self._unsaid = 0
        code = _CODES.get(unwanted.reason, ErrorCode.INVALID)
        self._say(Error(code=code, message=unwanted.message, details=Opaque.of(details)))

    def _is_news(self, key: tuple[str, str | None]) -> bool:
        now = trio.current_time()
        said_at = self._said.get(key)
        if said_at is not None and now - said_at < SAID_AGAIN_S:
            return False
        if said_at is None and len(self._said) >= AT_MOST:
            self._said = {other: at for other, at in self._said.items() if now - at < SAID_AGAIN_S}
            if len(self._said) >= AT_MOST:
                return False
        self._said[key] = now
        return True
