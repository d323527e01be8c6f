"""What an installation is shown of the hardware graph, whole or as what has changed since it looked last."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from skygw.ids import InstallId


@dataclass(frozen=True, slots=True)
class GraphStamp:
    """Which graph it is: whose, of which revision, and `shape`, which stands for what is shown of each resource."""

    root: UUID
    revision: int
    shape: str

    @property
    def tag(self) -> str:
        """The same for the same bytes, and for no others."""
        return f"{self.root}.{self.revision}.{self.shape}"


@dataclass(frozen=True, slots=True)
class Graph:
    """`resources` is a JSON object of resources by uid."""

    stamp: GraphStamp
    resources: str


@dataclass(frozen=True, slots=True)
class GraphChanges:
    """What became of a graph since a revision: `upserted` is a JSON object by uid. When it is `complete`, there was no
    telling: `upserted` is everything, and what is not in it is gone.
    """

    stamp: GraphStamp
    upserted: str
    removed: tuple[UUID, ...]
    complete: bool


class GraphStore(Protocol):
    """The hub's records of hardware, each answer as of one moment. Nothing for an installation that is not there.
    Raises `RoutingUnavailable`.
    """

    async def stamp(self, install_id: InstallId) -> GraphStamp | None:
        """Without building the graph."""
        ...

    async def graph(self, install_id: InstallId) -> Graph | None: ...

    async def changes(self, install_id: InstallId, since: int) -> GraphChanges | None: ...


class Hardware:
    """What the node door asks. Everything raises what the store raises."""

    def __init__(self, store: GraphStore) -> None:
        self._store = store

    async def graph(self, install_id: InstallId, *, held: frozenset[str] | None) -> Graph | GraphStamp | None:
        """The graph; its stamp alone if its tag is among those that are `held`, or if any is (`None`)."""
        if held is None or held:
            stamp = await self._store.stamp(install_id)
            if stamp is None or held is None or stamp.tag in held:
                return stamp
        return await self._store.graph(install_id)

    async def changes(self, install_id: InstallId, since: int) -> GraphChanges | None:
        """Since a revision the installation has. From one that this hub does not know it gets everything: one that is
        too old, one of another observatory, or a newer one, which a hub restored from a backup no longer has.
        """
        return await self._store.changes(install_id, since)
