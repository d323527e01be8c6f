"""A gateway's rooms without doors: registry, sessions, direct requests and commands over memory links and twins."""

from collections.abc import Collection, Mapping
from itertools import count
from time import time
from typing import Any, TypeVar
from uuid import UUID, uuid4

import trio

from skygw.control.allow_list import AllowList
from skygw.control.commands import CommandService
from skygw.control.configuration_guard import ConfigurationGuard
from skygw.control.direct_rpc import DirectOrder, DirectRpc
from skygw.control.graph_news import GraphNews
from skygw.control.guards import Guards
from skygw.control.lease import Holder, LeaseWish, Place, Terms
from skygw.control.lease_guard import LeaseGuard
from skygw.control.leases import LeaseService
from skygw.control.order import CommandOrder
from skygw.control.running_tasks import TaskGuard
from skygw.control.safing_spool import SafingSpool
from skygw.control.site_guards import InterlockGuard, LocalControlGuard, SiteWord
from skygw.control.task_aborts import TaskAborts
from skygw.errors import Busy
from skygw.ids import (
    BootId,
    CommandId,
    DeviceUid,
    InstallId,
    InstanceUid,
    LeaseUid,
    OutboxUid,
    RequestId,
    TelescopeUid,
)
from skygw.nodes.admission import Arrival, NodeDoor
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Binding, SessionPorts
from skygw.nodes.session import NodeSession, SessionRules
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import OnExpiry, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import Hello, NodeType, Ping
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.following import NodeStreams
from skygw.telemetry.hub import StreamHub
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.memory_link import MemoryLink
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_surveyor import MemorySurveyor
from tests.fakes.memory_tasks import MemoryTasks
from tests.fakes.ports import (
    CountedMetrics,
    MemoryCommands,
    MemoryControllers,
    MemoryEpochs,
    MemoryReports,
    MemoryTokens,
    Switch,
)

FrameT = TypeVar("FrameT", bound=Frame)

SERVICE = "tests"
LASTING = Terms(1e8, 0.0, OnExpiry.FINISH)
"""Longer than any test's clock runs."""


class Site:
    """One installation: who it is, and what it can say `hello` with."""

    def __init__(self) -> None:
        self.install_id = InstallId(uuid4())
        self.instance_uid = InstanceUid(uuid4())
        self.outbox_uid = OutboxUid(uuid4())
        self.telescope_uid = TelescopeUid(uuid4())
        self.device_uid = DeviceUid(uuid4())
        self.lease_wish = LeaseWish(
            self.telescope_uid, ResourceKind.TELESCOPE, LeaseUid(uuid4()), Holder(SERVICE), LASTING
        )
        observatory_uid = uuid4()
        self.binding = Binding(
            install_id=self.install_id,
            name="Test site",
            node_type=NodeType.TELESCOPE,
            observatory_uid=observatory_uid,
            telescopes=frozenset({self.telescope_uid}),
            devices=frozenset({self.device_uid}),
            resources={
                uid: Resource(uid, kind, self.install_id, observatory_uid, self.telescope_uid, device_type)
                for uid, kind, device_type in (
                    (self.telescope_uid, ResourceKind.TELESCOPE, None),
                    (self.device_uid, ResourceKind.DEVICE, "mount"),
                )
            },
        )

    def hello(self, **changed: Any) -> Hello:
        members: dict[str, Any] = {
            "install_id": self.install_id,
            "instance_uid": self.instance_uid,
            "node_type": NodeType.TELESCOPE,
            "software_version": "1.0",
            "boot_id": BootId(uuid4()),
            "outbox_uid": self.outbox_uid,
            "last_fences": {},
        }
        return Hello(**{**members, **changed})


class PlayedLink(MemoryLink):
    """A memory link with an ear for what a test waits for. `served` is set when the gateway let go of the socket."""

    def __init__(self) -> None:
        super().__init__()
        self.served = trio.Event()

    async def hear_next(self, kind: type[FrameT]) -> FrameT:
        """The next frame of that kind; others are passed over."""
        while True:
            frame = await self.hear()
            if isinstance(frame, kind):
                return frame

    def heard_so_far(self) -> list[str | bytes]:
        """Everything that was sent and not yet heard, without waiting."""
        messages = []
        while True:
            try:
                messages.append(self.sent.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return messages


class Gateway:
    """One process, its sessions in `nursery`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        rules: SessionRules | None = None,
        *,
        leased: bool = True,
        asks_for_leases: bool = True,
        spool: SafingSpool | None = None,
        service_telescopes: Mapping[str, Collection[UUID]] | None = None,
    ) -> None:
        """With `leased`, whoever sends a `command_order` has the lease of the site's telescope. Without
        `asks_for_leases` anybody may move everything, as far as it is up to leases.
        """
        self._leased = leased
        self.database = Switch()
        self.registry = ConnectionRegistry()
        self.epochs = MemoryEpochs(self.database)
        self.ledger = MemoryCommands(self.database)
        self.reports = MemoryReports(self.database, self.ledger)
        self.controllers = MemoryControllers(self.database)
        self.tokens = MemoryTokens()
        self.log = MemoryLog()
        self.hub = StreamHub(era=1, log=self.log)
        self.snapshots = self.hub.retained
        self.metrics = CountedMetrics()
        self.command_outcomes: list[str] = []
        self.lease_database = Switch()
        """One of its own: tests count how long the other takes."""
        self.lease_ledger = MemoryLeases(self.lease_database, self.epochs.fences)
        self.surveyor = MemorySurveyor(self.database)
        self.allowed = AllowList(service_telescopes or {}, self.surveyor)
        self.tasks = MemoryTasks(self.lease_ledger, self.lease_database)
        self.aborts = TaskAborts(tasks=self.tasks, registry=self.registry)
        self.leases = LeaseService(
            ledger=self.lease_ledger,
            registry=self.registry,
            retained=self.snapshots,
            aborts=self.aborts,
            allowed=self.allowed,
        )
        self.graph_news = GraphNews(self.registry)
        self.graph_news.began()
        sites = SiteWord(self.snapshots, self.registry)
        self.commands = CommandService(
            registry=self.registry,
            ledger=self.ledger,
            controllers=self.controllers,
            guards=Guards(
                [
                    self.allowed,
                    *([LeaseGuard(self.lease_ledger)] if asks_for_leases else []),
                    LocalControlGuard(sites),
                    InterlockGuard(sites),
                    TaskGuard(self.tasks),
                    ConfigurationGuard(self.graph_news),
                ]
            ),
            finished=self.command_outcomes.append,
            spool=spool,
        )
        self.rpc = DirectRpc(self.registry, metrics=self.metrics, allowed=self.allowed)
        self.rules = rules or SessionRules()
        self.door = NodeDoor(
            registry=self.registry,
            epochs=self.epochs,
            rules=self.rules,
            ports=SessionPorts(
                reports=self.reports,
                tokens=self.tokens,
                snapshots=self.snapshots,
                streams=NodeStreams(self.hub),
                results=self.commands,
                graph=self.graph_news,
                metrics=self.metrics,
            ),
            witnesses=[self.commands, self.leases, self.aborts],
        )
        self._nursery = nursery

    @property
    def call_outcomes(self) -> list[tuple[str, str]]:
        """Outcome and reason of every call that ended; the reason is empty when nothing was wrong."""
        return self.metrics.calls

    def accept(self, site: Site, *, token_lasts_s: float = 1e6) -> PlayedLink:
        """A socket of the site that has said nothing yet."""
        link = PlayedLink()
        self.controllers.of[site.telescope_uid] = site.install_id
        self.controllers.of[site.device_uid] = site.install_id
        self.surveyor.know(site.binding)
        self.lease_ledger.put(*(Place(resource, ()) for resource in site.binding.resources.values()))
        if self._leased:
            self.lease_ledger.grant(site.lease_wish)
        arrival = Arrival(link=link, binding=site.binding, token_expires_at=time() + token_lasts_s, address="192.0.2.7")
        self._nursery.start_soon(self._serve, arrival, link)
        return link

    async def _serve(self, arrival: Arrival, link: PlayedLink) -> None:
        await self.door.serve(arrival)
        link.served.set()

    async def connect(self, site: Site, *, token_lasts_s: float = 1e6, **hello: Any) -> PlayedLink:
        """A socket of the site that has been welcomed."""
        link = self.accept(site, token_lasts_s=token_lasts_s)
        link.say(site.hello(**hello))
        await link.hear_next(Welcome)
        return link

    def session(self, site: Site) -> NodeSession:
        session = self.registry.current(site.install_id)
        assert session is not None
        return session


def direct_order(site: Site, *, timeout_s: float = 30.0, request_id: str | None = None, **changed: Any) -> DirectOrder:
    members: dict[str, Any] = {
        "install_id": site.install_id,
        "operation": "device.read",
        "params": Opaque.of({}),
        "timeout_s": timeout_s,
        "service": "tests",
        "request_id": RequestId(request_id or str(uuid4())),
    }
    return DirectOrder(**{**members, **changed})


def command_order(site: Site, command: dict[str, Any] | None = None, **changed: Any) -> CommandOrder:
    members: dict[str, Any] = {
        "command_id": CommandId(uuid4()),
        "telescope_uid": site.telescope_uid,
        "device_uid": None,
        "command": Opaque.of({"command_type": "mount.point", "target": {"ra": 10.0}} if command is None else command),
        "origin": None,
        "service": SERVICE,
        "actor": None,
        "timeout_s": 60.0,
        "lease_uid": site.lease_wish.lease_uid,
    }
    return CommandOrder(**{**members, **changed})


def fill_data_lane(session: NodeSession) -> None:
    """By many callers, until nobody finds room for a message of the usual size."""
    for number in count():
        try:
            while True:
                session.put(Lane.DATA, Ping(id="x" * 250), f"caller {number}")
        except Busy as busy:
            if "service" not in busy.details:
                return
