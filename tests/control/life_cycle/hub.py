"""One gateway process after the other over one database, and what callers ask of them and are told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from time import time
from uuid import UUID

import trio

from skygw.client.link import LinkEnded
from skygw.control.lease import Holder, LeaseProof, LeaseWish, Terms
from skygw.control.ledger import ENDS, Caller, CommandRecord
from skygw.control.order import CommandOrder
from skygw.control.receipts import receipt_of
from skygw.errors import GatewayError
from skygw.ids import CommandId, InstallId, LeaseId, LeaseUid
from skygw.nodes.admission import Arrival
from skygw.nodes.session import SessionRules
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.json_text import Opaque
from skygw.resources import ResourceKind
from tests.control.life_cycle.history import LeasePlan, OrderPlan
from tests.control.life_cycle.places import BINDINGS, CONTROLLERS, NAMES, PLACES
from tests.control.life_cycle.story import Claim, Grant, Refusal, Story, Submission
from tests.control.life_cycle.wire import Wire
from tests.fakes.memory_database import MemoryDatabase
from tests.fakes.rooms import Gateway

CALLERS = ("anna", "bert", "robot")
FLUSH_S = 2.0

Ask = Callable[[Gateway], Awaitable[None]]


@dataclass
class Process:
    """One gateway's process."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    wires: list[Wire] = field(default_factory=list)
    rooms: Gateway | None = None
    nursery: trio.Nursery | None = None
    is_up: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)


class Hub:
    """The database is there for good; a process is started, told to end, or killed."""

    def __init__(self, *, story: Story, secrets: Random) -> None:
        self.database = MemoryDatabase()
        self.database.controllers.of.update(CONTROLLERS)
        self.database.leases.put(*PLACES)
        self.process: Process | None = None
        self.granted: dict[int, tuple[LeaseId, LeaseProof]] = {}
        self._story = story
        self._secrets = secrets

    # Processes.

    async def start(self, nursery: trio.Nursery) -> None:
        if self.process is None:
            process = self.process = Process()
            nursery.start_soon(self._run, process)
            await process.is_up.wait()

    async def _run(self, process: Process) -> None:
        with process.scope:
            async with trio.open_nursery() as nursery:
                process.nursery = nursery
                process.rooms = Gateway(nursery, SessionRules(), leased=False, kept=self.database)
                nursery.start_soon(process.rooms.leases.run)
                await nursery.start(process.rooms.commands.run)
                process.is_up.set()
                await trio.sleep_forever()
        process.over.set()

    async def end(self) -> None:
        """In order: goodbye to the nodes, and the ledger hears what is known, if it can."""
        process, self.process = self.process, None
        if process is None or process.rooms is None:
            return
        self._story.gateway_deaths.append(trio.current_time())
        rooms = process.rooms
        rooms.door.drain()
        rooms.commands.drain()
        for session in rooms.registry:
            session.end(CloseCode.DRAINING, "draining")
        with trio.move_on_after(FLUSH_S):
            await rooms.registry.empty()
            await rooms.commands.flush()
        process.scope.cancel()
        await process.over.wait()

    def kill(self, *, in_flight: bool) -> None:
        """What it knew is gone; with `in_flight`, what it had given to its kernel arrives."""
        process, self.process = self.process, None
        if process is None:
            return
        self._story.gateway_deaths.append(trio.current_time())
        for wire in process.wires:
            wire.cut(in_flight=in_flight)
            wire.gateway_end.is_dead = True
        process.scope.cancel()

    def dial(self, install_id: InstallId, make: Callable[[], Wire]) -> Wire:
        """A socket of a node. Raises `LinkEnded`."""
        process = self.process
        if process is None or process.rooms is None or process.nursery is None:
            raise LinkEnded("There is no gateway.")
        wire = make()
        process.wires.append(wire)
        arrival = Arrival(
            link=wire.gateway_end,
            binding=BINDINGS[install_id],
            token_expires_at=time() + 1e6,
            address=NAMES[install_id],
        )
        process.nursery.start_soon(process.rooms.door.serve, arrival)
        return wire

    def ask(self, ask: Ask) -> None:
        """In a task of the process: who asks hears nothing if it dies."""
        process = self.process
        if process is not None and process.rooms is not None and process.nursery is not None:
            process.nursery.start_soon(ask, process.rooms)

    # Commands.

    async def submit(self, plan: OrderPlan, *, caller: int, lease: int | None, other: bool, wait_s: float) -> None:
        """With another body if it is the `other` command under that id."""
        body = {**plan.body, "other": True} if other else plan.body
        shown = None if lease is None else self.granted.get(lease)
        order = CommandOrder(
            command_id=plan.command_id,
            telescope_uid=plan.target if plan.by_telescope else None,  # type: ignore[arg-type]
            device_uid=None if plan.by_telescope else plan.target,  # type: ignore[arg-type]
            command=Opaque.of(body),
            origin=None,
            service="model",
            actor={"uid": CALLERS[caller], "kind": "user"},
            timeout_s=plan.timeout_s,
            lease_uid=None if shown is None else shown[1].lease_uid,
        )
        said = Submission(
            plan.command_id, order.command_type, plan.target, trio.current_time(), plan.timeout_s, lease, other
        )
        self._story.submissions.append(said)

        async def ask(rooms: Gateway) -> None:
            try:
                record, said.is_duplicate = await rooms.commands.submit(order)
            except GatewayError as error:
                said.answer = Refusal(error.reason, error.outcome)
            else:
                said.answer = self._told(record)
            said.answered_at = trio.current_time()
            if isinstance(said.answer, Claim) and wait_s > 0 and said.answer.state not in ENDS:
                await self._hear(lambda: rooms.commands.wait(plan.command_id, wait_s))

        self.ask(ask)

    def look(self, command_id: CommandId) -> None:
        async def ask(rooms: Gateway) -> None:
            await self._hear(lambda: rooms.commands.get(command_id))

        self.ask(ask)

    async def _hear(self, question: Callable[[], Awaitable[CommandRecord]]) -> None:
        try:
            self._told(await question())
        except GatewayError:
            return

    def cancel(self, command_id: CommandId, *, caller: int, mode: CancelMode, grace_s: float, wait_s: float) -> None:
        """As the door does, with its receipt."""
        by = Caller("model", {"uid": CALLERS[caller], "kind": "user"})
        self._story.cancels.add(command_id)

        async def ask(rooms: Gateway) -> None:
            try:
                met = await rooms.commands.cancel(command_id, mode=mode, grace_s=grace_s, by=by)
                record = met.record
                if met.met != "before_start" and record is not None and record.state not in ENDS:
                    record = await rooms.commands.wait(command_id, wait_s, for_cancel=True)
                said = receipt_of(met, record)
                if record is not None and met.met != "before_start":
                    self._told(record, receipt=said.word)
                else:
                    how = "before_start" if met.met == "before_start" else None
                    self._story.claims.append(
                        Claim(
                            command_id,
                            trio.current_time(),
                            said.state,
                            how,
                            receipt=said.word,
                            is_of_no_record=record is None,
                        )
                    )
            except GatewayError:
                return

        self.ask(ask)

    def _told(self, record: CommandRecord, *, receipt: str | None = None) -> Claim:
        claim = Claim(
            record.command_id,
            trio.current_time(),
            record.state,
            record.canceled,
            read_back=record.proof is not None and '"read_back"' in record.proof,
            receipt=receipt,
        )
        self._story.claims.append(claim)
        return claim

    # Leases.

    def acquire(self, number: int, plan: LeasePlan) -> None:
        kind = ResourceKind.TELESCOPE if plan.is_telescope else ResourceKind.DEVICE
        holder = Holder("model", CALLERS[plan.caller], "user")
        terms = Terms(plan.duration_s, 0.0, plan.on_expiry, plan.deadman_s)
        wish = LeaseWish(plan.target, kind, LeaseUid(UUID(int=self._secrets.getrandbits(128))), holder, terms)

        async def ask(rooms: Gateway) -> None:
            try:
                control, _ = await rooms.leases.acquire(wish)
            except GatewayError:
                return
            if control.lease is not None:
                self.granted[number] = control.lease.lease_id, LeaseProof(holder, wish.lease_uid)
                now = trio.current_time()
                self._story.grants.append(Grant(number, plan.target, control.fence, now, now + plan.duration_s))

        self.ask(ask)

    def renew(self, number: int, plan: LeasePlan) -> None:
        async def ask(rooms: Gateway) -> None:
            lease_id, proof = self.granted[number]
            try:
                await rooms.leases.renew(lease_id, proof, None)
            except GatewayError:
                return
            for grant in self._story.grants:
                if grant.lease == number:
                    grant.until = trio.current_time() + plan.duration_s

        if number in self.granted:
            self.ask(ask)

    def give_up(self, number: int, *, is_broken: bool) -> None:
        """Released by its holder, or broken by somebody else."""

        async def ask(rooms: Gateway) -> None:
            lease_id, proof = self.granted[number]
            try:
                if is_broken:
                    await rooms.leases.break_off(lease_id, Holder("model", "boss", "user"), "storm")
                else:
                    await rooms.leases.release(lease_id, proof)
            except GatewayError:
                return
            for grant in self._story.grants:
                if grant.lease == number:
                    grant.given_up_at = min(grant.given_up_at, trio.current_time())

        if number in self.granted:
            self.ask(ask)
