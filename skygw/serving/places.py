"""Who holds how many of a listener's places, and who gives way when there are none left."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import trio

from skygw.serving.config import ListenerConfig
from skygw.serving.ends import Refusal

SLOW_AT_ONCE = 8
"""Of those who wait for their turn, in each round of the event loop."""


class GivesWay(Protocol):
    def give_way(self) -> bool:
        """End, if it rests between two requests; False if it does not rest after all."""


class Places:
    """One for each listener.

    A peer that stands for itself holds a place for each of its connections. Behind a trusted proxy the connections are
    the proxy's, and are used for one client after another: there a client holds a place for each request that is under
    way and for each WebSocket.
    """

    def __init__(self, config: ListenerConfig, *, refused: Callable[[Refusal, str], None]) -> None:
        self._config = config
        self._refused = refused
        self._taken = 0
        self._by_client: Counter[str] = Counter()
        self._resting: dict[GivesWay, str] = {}  # with the peer's address; the longest at rest comes first
        self._resting_of: dict[str, dict[GivesWay, None]] = {}
        self._turns = trio.CapacityLimiter(SLOW_AT_ONCE)

    def take_connection(self, peer: str) -> bool:
        """A place for a connection that was accepted; False if there is none, and `refused` has heard why."""
        is_proxy = self._config.is_proxy(peer)
        if not self._config.lets_in(peer):
            return self._refuse(Refusal.STRANGER, peer)
        if not is_proxy and not self._has_room(peer) and not self._make_room(self._resting_of.get(peer, {})):
            return self._refuse(Refusal.TOO_MANY_FROM_ADDRESS, peer)
        if self._taken >= self._config.max_connections and not self._make_room(self._resting):
            return self._refuse(Refusal.TOO_MANY, peer)
        self._taken += 1
        if not is_proxy:
            self._by_client[peer] += 1
        return True

    def give_connection_back(self, peer: str, connection: GivesWay) -> None:
        """Once for each connection that was taken."""
        self._taken -= 1
        self.works(connection)
        if not self._config.is_proxy(peer):
            self.give_back(peer)

    def take(self, client: str) -> bool:
        """A place in the name of a client that a trusted proxy vouches for; False if it holds too many."""
        if not self._has_room(client):
            return self._refuse(Refusal.TOO_MANY_FROM_ADDRESS, client)
        self._by_client[client] += 1
        return True

    def give_back(self, client: str) -> None:
        """Once for each place that was taken."""
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def rests(self, connection: GivesWay, peer: str) -> None:
        """It waits for a request: its first, or the next after an answer. Who asks nothing gives way to who does."""
        self._resting[connection] = peer
        self._resting_of.setdefault(peer, {})[connection] = None

    def works(self, connection: GivesWay) -> None:
        """A request has come, or it has ended."""
        peer = self._resting.pop(connection, None)
        if peer is not None:
            of_peer = self._resting_of[peer]
            del of_peer[connection]
            if not of_peer:
                del self._resting_of[peer]

    async def turn(self) -> None:
        """Wait behind the others who let us wait: a thousand whose next bytes come at once are taken a few at a time,
        and whoever comes whole is served between them.
        """
        async with self._turns:
            await trio.lowlevel.checkpoint()

    def _has_room(self, client: str) -> bool:
        cap = self._config.max_connections_per_address
        return cap is None or self._by_client[client] < cap

    def _refuse(self, why: Refusal, client: str) -> bool:
        self._refused(why, client)
        return False

    def _make_room(self, resting: Mapping[GivesWay, object]) -> bool:
        """Whoever only rests must not keep those out who want something, a stop say."""
        while resting:
            longest_at_rest = next(iter(resting))
            self.works(longest_at_rest)
            if longest_at_rest.give_way():
                return True
        return False


class ClientPlace:
    """What one connection holds in the name of the client for whom a trusted proxy speaks: at most one place."""

    def __init__(self, places: Places, config: ListenerConfig, *, peer: str) -> None:
        self._places = places
        self._resolve = config.resolve_client if config.is_proxy(peer) else None
        self._never_refused = config.never_refused
        self._peer = peer
        self._client: str | None = None

    def take(self, forwarded_for: Sequence[bytes], path: bytes) -> bool:
        """A place for a request; False if its client has too many, which is counted and logged."""
        if self._resolve is None or not forwarded_for:
            return True  # the peer speaks for itself
        if self._never_refused is not None and self._never_refused(path.decode("latin-1")):
            return True
        client = self._resolve(self._peer, [value.decode("latin-1") for value in forwarded_for]) or "unknown"
        if not self._places.take(client):
            return False
        self._client = client
        return True

    def leave(self) -> None:
        """The request has ended. Idempotent."""
        if self._client is not None:
            self._places.give_back(self._client)
            self._client = None
