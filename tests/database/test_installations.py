"""The hub's records say who may be here and who controls what."""

from uuid import UUID, uuid4

import psycopg
import pytest

from skygw.database.installations import Installation, Installations
from skygw.database.pool import Database
from skygw.database.provision import (
    NewConstraint,
    NewDevice,
    NewInstrument,
    NewObservatory,
    NewTelescope,
    provision,
    revoke,
)
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from skygw.protocol.node_frames import NodeType
from skygw.resources import ResourceKind
from tests.fakes.postgres import PostgresServer


def a_device(device_type: str) -> NewDevice:
    return NewDevice(DeviceUid(uuid4()), device_type, f"the {device_type}")


def a_telescope(name: str) -> NewTelescope:
    mount, camera = a_device("mount"), a_device("camera")
    return NewTelescope(
        uid=TelescopeUid(uuid4()),
        name=name,
        devices=(mount, camera),
        instruments=(
            NewInstrument(uuid4(), "optical_imager", parts=(mount.uid, camera.uid)),
            NewInstrument(uuid4(), "radio_spectrometer"),
        ),
        constraints=(NewConstraint(uuid4(), "sun_altitude"),),
        install_id=InstallId(uuid4()),
        client_id=f"client-{uuid4()}",
    )


def an_observatory() -> NewObservatory:
    return NewObservatory(
        uid=uuid4(),
        name="Cerro",
        telescopes=(a_telescope("east"), a_telescope("west")),
        devices=(a_device("enclosure"), a_device("weather_sensor")),
        constraints=(NewConstraint(uuid4(), "weather_sensor"),),
        install_id=InstallId(uuid4()),
    )


@pytest.fixture
async def site(postgres: PostgresServer) -> NewObservatory:
    observatory = an_observatory()
    await provision(postgres.owner_url, [observatory])
    return observatory


@pytest.fixture
def installations(database: Database) -> Installations:
    return Installations(database)


def change(postgres: PostgresServer, statement: str, uid: UUID | None) -> None:
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute(statement.encode(), [uid])


async def found(installations: Installations, install_id: InstallId | None) -> Installation:
    assert install_id is not None
    installation = await installations.find(install_id)
    assert installation is not None
    return installation


async def test_a_telescopes_node_controls_the_telescope_and_its_devices(
    installations: Installations, site: NewObservatory
) -> None:
    east = site.telescopes[0]
    installation = await found(installations, east.install_id)
    assert installation.node_type is NodeType.TELESCOPE
    assert installation.observatory_uid == site.uid
    assert installation.telescopes == (east.uid,)
    assert installation.devices == tuple((device.uid, device.device_type) for device in east.devices)
    assert installation.binding.controls == {east.uid, *(device.uid for device in east.devices)}


async def test_an_observatorys_node_controls_what_no_telescope_owns(
    installations: Installations, site: NewObservatory
) -> None:
    installation = await found(installations, site.install_id)
    assert installation.node_type is NodeType.OBSERVATORY
    assert installation.telescope_uid is None
    assert installation.telescopes == ()
    assert [device_type for _, device_type in installation.devices] == ["enclosure", "weather_sensor"]


async def test_telemetry_of_a_telescope_and_of_what_belongs_to_it_is_its_own_nodes(
    installations: Installations, site: NewObservatory
) -> None:
    east = site.telescopes[0]
    mount, camera = (device.uid for device in east.devices)
    imager, spectrometer = (instrument.uid for instrument in east.instruments)
    resources = (await found(installations, east.install_id)).binding.resources
    assert {uid: resource.kind for uid, resource in resources.items()} == {
        east.uid: ResourceKind.TELESCOPE,
        mount: ResourceKind.DEVICE,
        camera: ResourceKind.DEVICE,
        imager: ResourceKind.INSTRUMENT,
        spectrometer: ResourceKind.INSTRUMENT,
        east.constraints[0].uid: ResourceKind.CONSTRAINT,
    }
    assert {uid: resource.parts for uid, resource in resources.items() if resource.parts} == {imager: (mount, camera)}
    assert {uid: resource.device_type for uid, resource in resources.items() if resource.device_type} == {
        mount: "mount",
        camera: "camera",
    }
    assert {resource.telescope_uid for resource in resources.values()} == {east.uid}
    assert {resource.observatory_uid for resource in resources.values()} == {site.uid}
    assert {resource.install_id for resource in resources.values()} == {east.install_id}


async def test_telemetry_of_what_an_observatory_shares_is_its_own_nodes(
    installations: Installations, site: NewObservatory
) -> None:
    resources = (await found(installations, site.install_id)).binding.resources
    enclosure, weather_sensor = (device.uid for device in site.devices)
    assert {uid: resource.kind for uid, resource in resources.items()} == {
        site.uid: ResourceKind.OBSERVATORY,
        enclosure: ResourceKind.DEVICE,
        weather_sensor: ResourceKind.DEVICE,
        site.constraints[0].uid: ResourceKind.CONSTRAINT,
    }
    assert {resource.telescope_uid for resource in resources.values()} == {None}


async def test_everything_is_found_by_uid_integer_key_and_client_id(
    installations: Installations, site: NewObservatory
) -> None:
    east = site.telescopes[0]
    installation = await found(installations, east.install_id)
    assert await installations.find_by_any(str(installation.id)) == installation
    assert await installations.find_by_any(str(installation.install_id)) == installation
    assert await installations.by_client_id(str(east.client_id)) == installation.install_id


@pytest.mark.parametrize("nobody", ["0", "2147483648", "9" * 400, "²", "", "-1", str(UUID(int=0)), "\x00"])
async def test_a_key_of_nobody_finds_nobody(installations: Installations, nobody: str) -> None:
    assert await installations.find_by_any(nobody) is None


@pytest.mark.parametrize("nobody", ["nobody's", "", "\x00"])
async def test_nobody_is_found_by_another_client_id(installations: Installations, nobody: str) -> None:
    assert await installations.by_client_id(nobody) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sky_node_installation SET is_active = false WHERE uid = %s",
        "UPDATE sky_node_installation SET is_deleted = true WHERE uid = %s",
        "UPDATE sky_node_installation SET revoked_on = now() WHERE uid = %s",
        "DELETE FROM sky_node_installation WHERE uid = %s",
    ],
    ids=["inactive", "deleted", "revoked", "gone"],
)
async def test_an_installation_that_may_not_be_here_is_told_from_those_that_may(
    postgres: PostgresServer, installations: Installations, site: NewObservatory, statement: str
) -> None:
    east, west = (telescope.install_id for telescope in site.telescopes)
    assert east is not None
    assert west is not None
    assert await installations.refused_among([east, west]) == set()
    change(postgres, statement, east)
    assert await installations.refused_among([east, west]) == {east}
    left = await installations.find(east)
    assert left is None or left.refusal is not None
    assert (await found(installations, west)).refusal is None
    assert await installations.controller_of(telescope_uid=site.telescopes[0].uid, device_uid=None) is None


async def test_many_are_found_at_once_and_the_deleted_are_not_among_them(
    installations: Installations, site: NewObservatory, postgres: PostgresServer
) -> None:
    east, west = site.telescopes
    assert east.install_id is not None
    assert west.install_id is not None
    change(postgres, "UPDATE sky_node_installation SET is_deleted = true WHERE uid = %s", west.install_id)
    change(postgres, "UPDATE sky_node_installation SET is_active = false WHERE uid = %s", east.install_id)
    bindings = await installations.bindings([east.install_id, west.install_id, InstallId(uuid4())])
    assert list(bindings) == [east.install_id]
    assert east.uid in bindings[east.install_id].resources


async def test_nobody_connected_asks_for_nobody(installations: Installations) -> None:
    assert await installations.refused_among([]) == set()


async def test_a_command_goes_to_the_node_that_controls_its_target(
    installations: Installations, site: NewObservatory
) -> None:
    east = site.telescopes[0]
    assert await installations.controller_of(telescope_uid=east.uid, device_uid=None) == east.install_id
    mount, enclosure = east.devices[0].uid, site.devices[0].uid
    assert await installations.controller_of(telescope_uid=None, device_uid=mount) == east.install_id
    assert await installations.controller_of(telescope_uid=None, device_uid=enclosure) == site.install_id
    assert await installations.controller_of(telescope_uid=east.uid, device_uid=enclosure) == site.install_id
    assert await installations.controller_of(telescope_uid=TelescopeUid(uuid4()), device_uid=None) is None
    assert await installations.controller_of(telescope_uid=None, device_uid=None) is None


async def test_what_is_deleted_is_controlled_by_nobody(
    postgres: PostgresServer, installations: Installations, site: NewObservatory
) -> None:
    east, west = site.telescopes
    mount = west.devices[0].uid
    change(postgres, "UPDATE telescope SET is_deleted = true WHERE uid = %s", east.uid)
    change(postgres, "UPDATE device SET is_deleted = true WHERE uid = %s", mount)
    change(postgres, "UPDATE instrument SET is_deleted = true WHERE uid = %s", west.instruments[1].uid)
    change(postgres, "UPDATE operational_constraint SET is_deleted = true WHERE uid = %s", west.constraints[0].uid)
    assert await installations.controller_of(telescope_uid=east.uid, device_uid=None) is None
    assert await installations.controller_of(telescope_uid=None, device_uid=east.devices[0].uid) is None
    assert await installations.controller_of(telescope_uid=None, device_uid=mount) is None
    assert (await found(installations, east.install_id)).binding.controls == set()
    assert (await found(installations, east.install_id)).binding.resources == {}
    left = (await found(installations, west.install_id)).binding
    assert left.devices == {west.devices[1].uid}
    assert left.resources.keys() == {west.uid, west.devices[1].uid, west.instruments[0].uid}
    assert left.resources[west.instruments[0].uid].parts == (west.devices[1].uid,)


async def test_a_page_has_its_items_and_the_total(installations: Installations, site: NewObservatory) -> None:
    first, total = await installations.list_page(page=1, size=2, observatory_uid=site.uid)
    second, same_total = await installations.list_page(page=2, size=2, observatory_uid=site.uid)
    assert total == same_total == 3
    assert {item.install_id for item in (*first, *second)} == {
        site.install_id,
        *(telescope.install_id for telescope in site.telescopes),
    }
    assert [item.id for item in (*first, *second)] == sorted(item.id for item in (*first, *second))


async def test_a_page_hides_the_deleted_unless_asked(
    postgres: PostgresServer, installations: Installations, site: NewObservatory
) -> None:
    change(postgres, "UPDATE sky_node_installation SET is_deleted = true WHERE uid = %s", site.install_id)
    _, visible = await installations.list_page(page=1, size=10, observatory_uid=site.uid)
    _, every = await installations.list_page(page=1, size=10, observatory_uid=site.uid, include_deleted=True)
    assert (visible, every) == (2, 3)


async def test_provisioning_again_changes_nothing_and_lets_the_revoked_in(
    postgres: PostgresServer, installations: Installations, site: NewObservatory
) -> None:
    east = site.telescopes[0].install_id
    before = await found(installations, east)
    assert east is not None
    await revoke(postgres.owner_url, east)
    assert (await found(installations, east)).revoked
    await provision(postgres.owner_url, [site])
    assert await found(installations, east) == before
