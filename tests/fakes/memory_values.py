"""Latest values kept in memory, for tests of what is written when; and the hub's records of who there is."""

from collections.abc import Collection, Mapping, Sequence

import trio

from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import InstallId
from skygw.telemetry.kept_values import KeptValue
from skygw.telemetry.sessions import Bound
from tests.fakes.telemetry_rooms import Site


class MemoryValues:
    """`ValueStore` in memory. `away` makes it unreachable; it refuses what holds `unstorable`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], KeptValue] = {}
        self.statements: list[int] = []
        self.away = False
        self.unstorable = "\0"

    async def put(self, values: Collection[KeptValue]) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise RoutingUnavailable("The database is away.", retry_after_s=1.0)
        if any(self.unstorable in value.data for value in values):
            raise StoreFailed("The database refused it.", about_the_data=True)
        self.statements.append(len(values))
        for value in values:
            kept = self.rows.get((value.stream, str(value.uid)))
            if kept is None or (kept.version, kept.order) < (value.version, value.order):
                self.rows[value.stream, str(value.uid)] = value

    async def installations(self) -> Sequence[InstallId]:
        await trio.lowlevel.checkpoint()
        return list({value.install_id for value in self.rows.values()})

    async def of(self, install_ids: Collection[InstallId]) -> Sequence[KeptValue]:
        await trio.lowlevel.checkpoint()
        return [value for value in self.rows.values() if value.install_id in install_ids]


class MemoryDirectory:
    """`Directory` in memory."""

    def __init__(self, *sites: Site) -> None:
        self.sites = {site.install_id: site for site in sites}

    async def bindings(self, install_ids: Collection[InstallId]) -> Mapping[InstallId, Bound]:
        await trio.lowlevel.checkpoint()
        return {install_id: self.sites[install_id] for install_id in install_ids if install_id in self.sites}
