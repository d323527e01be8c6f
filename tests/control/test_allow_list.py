"""Which telescopes a service may act on: asked at every door that acts, never of a stop, the same on both records."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing
from pydantic import SecretStr

from skygw.cli.checks import Verdict
from skygw.cli.remote_checks import Clocks, check_database
from skygw.control.allow_list import AllowList, Surroundings, Surveyor
from skygw.control.lease import Holder, LeaseProof, LeaseWish, Terms
from skygw.control.ledger import Caller
from skygw.database.pool import open_loop_and_database
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.database.surveyor import PgSurveyor, unknown_among
from skygw.errors import DeadlineExceeded, Forbidden, NodeOffline, Outcome, Retry, RoutingUnavailable
from skygw.ids import DeviceUid, InstallId, LeaseUid, TelescopeUid
from skygw.nodes.ports import Binding
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, DirectRequest, EventCommand, OnExpiry
from skygw.protocol.node_frames import NodeType
from skygw.resources import ResourceKind
from skygw.settings import Settings
from tests.fakes.answers import whole_answer
from tests.fakes.memory_surveyor import MemorySurveyor
from tests.fakes.ports import Switch
from tests.fakes.postgres import PostgresServer
from tests.fakes.rooms import Gateway, PlayedLink, Site, command_order, direct_order

Clock = trio.testing.MockClock

CAMERA, ROOF = DeviceUid(uuid4()), DeviceUid(uuid4())
EAST, WEST = TelescopeUid(uuid4()), TelescopeUid(uuid4())
OF_EAST, OF_OBSERVATORY = InstallId(uuid4()), InstallId(uuid4())
OBSERVATORY = uuid4()
RECORDS = NewObservatory(
    OBSERVATORY,
    "Ridge",
    (
        NewTelescope(EAST, "east", (NewDevice(CAMERA, "camera"),), install_id=OF_EAST),
        NewTelescope(WEST, "west", (), install_id=InstallId(uuid4())),
    ),
    (NewDevice(ROOF, "enclosure"),),
    install_id=OF_OBSERVATORY,
)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(params=["memory", "postgres"])
async def surveyor(request: pytest.FixtureRequest) -> AsyncIterator[Surveyor]:
    if request.param == "memory":
        memory = MemorySurveyor(Switch())
        memory.survey(RECORDS)
        yield memory
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    await provision(server.owner_url, [RECORDS])
    async with open_loop_and_database(server.gateway_url) as database:
        yield PgSurveyor(database)


ALONE, ALL = Surroundings(OBSERVATORY, frozenset({EAST})), Surroundings(OBSERVATORY, frozenset({EAST, WEST}))


async def test_the_records_say_where_things_stand_and_what_is_shared(surveyor: Surveyor) -> None:
    assert await surveyor.around(ResourceKind.TELESCOPE, EAST) == ALONE
    assert await surveyor.around(ResourceKind.DEVICE, CAMERA) == ALONE
    assert await surveyor.around(ResourceKind.INSTALLATION, OF_EAST) == ALONE
    assert await surveyor.around(ResourceKind.DEVICE, ROOF) == ALL
    assert await surveyor.around(ResourceKind.INSTALLATION, OF_OBSERVATORY) == ALL
    assert await surveyor.around(ResourceKind.TELESCOPE, uuid4()) is None
    assert await surveyor.around(ResourceKind.DEVICE, EAST) is None


async def test_a_service_acts_on_what_is_listed_and_on_what_that_shares(surveyor: Surveyor) -> None:
    allowed = AllowList({"one": [EAST], "all": [OBSERVATORY], "none": []}, surveyor)
    for service, uids in {
        "one": (EAST, CAMERA, ROOF),
        "all": (EAST, WEST, CAMERA, ROOF),
        "none": (),
        "not named": (EAST, WEST, CAMERA, ROOF),
    }.items():
        for kind, uid in (
            (ResourceKind.TELESCOPE, EAST),
            (ResourceKind.TELESCOPE, WEST),
            (ResourceKind.DEVICE, CAMERA),
            (ResourceKind.DEVICE, ROOF),
        ):
            if uid in uids:
                await allowed.require(service, kind, uid)
            else:
                with pytest.raises(Forbidden, match=f"The service {service} may not"):
                    await allowed.require(service, kind, uid)
    await allowed.require("none", ResourceKind.DEVICE, uuid4())


async def test_the_refusal_names_the_service_and_the_telescope(surveyor: Surveyor) -> None:
    allowed = AllowList({"one": [EAST]}, surveyor)
    with pytest.raises(Forbidden) as refused:
        await allowed.require("one", ResourceKind.TELESCOPE, WEST)
    assert f"the telescope {WEST}" in refused.value.message
    assert (refused.value.outcome, refused.value.retry) == (Outcome.NOT_SENT, Retry.NEVER)
    assert refused.value.details == {
        "service": "one",
        "telescopeUid": str(WEST),
        "observatoryUid": str(OBSERVATORY),
    }


def binding(node_type: NodeType) -> Binding:
    telescopes = frozenset({EAST}) if node_type is NodeType.TELESCOPE else frozenset[TelescopeUid]()
    install_id = OF_EAST if node_type is NodeType.TELESCOPE else OF_OBSERVATORY
    return Binding(install_id, "A site", node_type, OBSERVATORY, telescopes, frozenset())


async def test_an_installation_is_asked_by_who_may_act_on_one_of_its_telescopes(surveyor: Surveyor) -> None:
    allowed = AllowList({"one": [EAST], "other": [WEST], "none": []}, surveyor)
    for known in (None, binding(NodeType.TELESCOPE)):
        await allowed.require_installation("one", OF_EAST, known)
        with pytest.raises(Forbidden, match=str(EAST)):
            await allowed.require_installation("other", OF_EAST, known)
    for known in (None, binding(NodeType.OBSERVATORY)):
        await allowed.require_installation("other", OF_OBSERVATORY, known)
        with pytest.raises(Forbidden, match=f"telescopes of the observatory {OBSERVATORY} share"):
            await allowed.require_installation("none", OF_OBSERVATORY, known)


async def test_uids_that_are_no_telescope_and_no_observatory_are_found(postgres: PostgresServer) -> None:
    await provision(postgres.owner_url, [RECORDS])
    nobody = sorted(uuid4() for _ in range(2))
    async with open_loop_and_database(postgres.gateway_url) as database, database.connection() as connection:
        assert await unknown_among(connection, [EAST, *nobody, OBSERVATORY]) == nobody
        assert await unknown_among(connection, [CAMERA]) == [CAMERA]
        assert await unknown_among(connection, []) == []


async def test_the_doctor_says_which_uids_nobody_has(postgres: PostgresServer, tmp_path: Path) -> None:
    await provision(postgres.owner_url, [RECORDS])
    nobody = uuid4()

    async def verdict(*uids: UUID) -> tuple[Verdict, str]:
        settings = Settings(
            data_dir=tmp_path,
            database_url=SecretStr(postgres.gateway_url),
            service_telescopes={"night": (*uids,), "day": (EAST,)},
        )
        found = {check.name: check for check in await check_database(settings, Clocks())}["service telescopes"]
        return found.verdict, found.found

    assert (await verdict(OBSERVATORY))[0] is Verdict.OK
    assert await verdict(EAST, nobody) == (
        Verdict.WARNING,
        f"no telescope or observatory has the uid {nobody}",
    )


# At the doors.


async def two_sites(
    nursery: trio.Nursery, **rooms: Any
) -> tuple[Gateway, tuple[Site, PlayedLink], tuple[Site, PlayedLink]]:
    """The service `night` may act on the first of them."""
    mine, other = Site(), Site()
    limits = {"night": [mine.telescope_uid]}
    gateway = Gateway(nursery, service_telescopes=limits, leased=False, asks_for_leases=False, **rooms)
    nursery.start_soon(gateway.commands.run)
    return gateway, (mine, await gateway.connect(mine)), (other, await gateway.connect(other))


async def test_a_command_for_another_telescope_is_refused_and_stored_nowhere_and_a_dry_run_says_so(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, (mine, link), (other, _) = await two_sites(nursery)
    await gateway.commands.submit(command_order(mine, service="night"))
    await link.hear_next(EventCommand)
    of_device = command_order(other, service="night", telescope_uid=None, device_uid=other.device_uid)
    for order in (command_order(other, service="night"), of_device):
        with pytest.raises(Forbidden, match=str(other.telescope_uid)):
            await gateway.commands.submit(order)
        assert order.command_id not in gateway.ledger.rows
        found, _ = await gateway.commands.validate(order)
        assert [error.reason for error in found] == ["forbidden"]
    await gateway.commands.submit(command_order(other, service="day"))


async def test_a_stop_and_a_cancel_are_not_asked(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    gateway, _, (other, link) = await two_sites(nursery)
    moving = command_order(other, service="day")
    await gateway.commands.submit(moving)
    assert (await link.hear_next(EventCommand)).command_id == moving.command_id
    asked = gateway.surveyor.asked
    stop = command_order(other, {"command_type": "mount.stop"}, service="night")
    await gateway.commands.submit(stop)
    by = Caller("night")
    cancellation = await gateway.commands.cancel(moving.command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=by)
    assert cancellation.met == "asked"
    assert (await link.hear_next(EventCommand)).command_id == stop.command_id
    await link.hear_next(CancelCommand)
    assert gateway.surveyor.asked == asked


def wish(site: Site, service: str) -> LeaseWish:
    terms = Terms(300.0, 60.0, OnExpiry.STOP)
    return LeaseWish(site.telescope_uid, ResourceKind.TELESCOPE, LeaseUid(uuid4()), Holder(service), terms)


async def test_no_control_is_got_kept_or_taken_of_another_telescope_and_it_may_be_given_back(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, (mine, _), (other, _) = await two_sites(nursery)
    await gateway.leases.acquire(wish(mine, "night"))
    with pytest.raises(Forbidden, match=str(other.telescope_uid)):
        await gateway.leases.acquire(wish(other, "night"))
    before = wish(other, "night")  # from before the setting said so
    control, _ = await gateway.lease_ledger.acquire(before)
    assert control.lease is not None
    lease_id, proof = control.lease.lease_id, LeaseProof(before.holder, before.lease_uid)
    with pytest.raises(Forbidden, match=str(other.telescope_uid)):
        await gateway.leases.renew(lease_id, proof, None)
    with pytest.raises(Forbidden, match=str(other.telescope_uid)):
        await gateway.leases.break_off(lease_id, before.holder, "mine")
    assert (await gateway.leases.get(lease_id)).held is not None
    assert (await gateway.leases.release(lease_id, proof)).held is None


async def read(gateway: Gateway, site: Site, service: str, **changed: Any) -> bytes:
    async with gateway.rpc.call(direct_order(site, service=service, **changed)) as answer:
        return b"".join([piece async for piece in answer])


async def test_a_direct_request_to_another_telescope_is_refused_with_the_database_away(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    gateway, (mine, link), (other, _) = await two_sites(nursery)
    gateway.database.away = True
    with pytest.raises(Forbidden, match=str(other.telescope_uid)):
        await read(gateway, other, "night")

    async def answer() -> None:
        request = await link.hear_next(DirectRequest)
        for message in whole_answer(request.id, b"mine"):
            link.say(message)

    nursery.start_soon(answer)
    assert await read(gateway, mine, "night") == b"mine"
    assert gateway.call_outcomes == [(Outcome.NOT_SENT, "forbidden"), (Outcome.SUCCEEDED, "")]


async def test_of_an_installation_that_is_away_the_records_are_asked_within_the_callers_time(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    mine, away = Site(), Site()
    gateway = Gateway(nursery, service_telescopes={"night": [mine.telescope_uid]}, leased=False, asks_for_leases=False)
    gateway.surveyor.know(mine.binding)
    gateway.surveyor.know(away.binding)
    with pytest.raises(Forbidden):
        await read(gateway, away, "night")
    with pytest.raises(NodeOffline):
        await read(gateway, mine, "night")
    with pytest.raises(NodeOffline):
        await read(gateway, away, "day")
    gateway.database.slow_s = 60.0
    with pytest.raises(DeadlineExceeded) as late:
        await read(gateway, mine, "night", timeout_s=5.0)
    assert late.value.outcome is Outcome.NOT_SENT
    gateway.database.away = True
    with pytest.raises(RoutingUnavailable):
        await read(gateway, mine, "night", timeout_s=100.0)
