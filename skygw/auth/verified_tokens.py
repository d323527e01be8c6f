"""Remembers for a while which tokens were verified, because a node that comes back brings the one it had.

What is remembered is bound to the very key set it was verified with: when the keys change, nothing of it counts. The
times of a token are looked at each time, and whether its installation may be here is not remembered at all.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace

from skygw.auth.claims import Claims
from skygw.auth.keys import KeySet

MAX_REMEMBERED = 8_192
"""About a kilobyte each; the one not seen for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token said that `keys` verified; its header named `kid`."""

    claims: Claims
    keys: KeySet
    kid: str | None


class VerifiedTokens:
    """By the digest of the token: none is kept, and the time a look-up takes tells nothing about one.
    Of the claims that are not in every token only `uid_claim` is kept.
    """

    def __init__(self, *, uid_claim: str) -> None:
        self._uid_claim = uid_claim
        self._known: OrderedDict[bytes, Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, token: str) -> Verified | None:
        """Whether the keys are still the same and the token is still in time is the caller's to look at."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    def remember(self, token: str, claims: Claims, *, keys: KeySet, kid: str | None) -> None:
        """In place of what was known of the token."""
        kept = {name: claims.values[name] for name in (self._uid_claim,) if name in claims.values}
        digest = _digest(token)
        self._known[digest] = Verified(replace(claims, values=kept), keys, kid)
        self._known.move_to_end(digest)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, token: str) -> None:
        self._known.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
