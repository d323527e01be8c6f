"""Observatories with everything that stands there, for development: what the hub makes in production."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from uuid import UUID

import psycopg
import trio

from skygw.ids import DeviceUid, InstallId, TelescopeUid

INSERT_OBSERVATORY = """
    INSERT INTO observatory (uid, name) VALUES (%(uid)s, %(name)s)
    ON CONFLICT (uid) DO UPDATE SET name = excluded.name, is_deleted = false
"""

INSERT_TELESCOPE = """
    INSERT INTO telescope (uid, name, observatory_id)
    SELECT %(uid)s, %(name)s, id FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, observatory_id = excluded.observatory_id, is_deleted = false
"""

INSERT_DEVICE = """
    INSERT INTO device (uid, name, device_type, telescope_id, observatory_id)
    SELECT %(uid)s, %(name)s, %(device_type)s, (SELECT id FROM telescope WHERE uid = %(telescope_uid)s), id
    FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, device_type = excluded.device_type, telescope_id = excluded.telescope_id,
            observatory_id = excluded.observatory_id, is_deleted = false
"""

INSERT_INSTRUMENT = """
    INSERT INTO instrument (uid, name, instrument_type, telescope_id)
    SELECT %(uid)s, %(name)s, %(instrument_type)s, id FROM telescope WHERE uid = %(telescope_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, instrument_type = excluded.instrument_type, telescope_id = excluded.telescope_id,
            is_deleted = false
"""

INSERT_PART = """
    INSERT INTO instrument_device (instrument_id, device_id)
    SELECT instrument.id, device.id FROM instrument, device
    WHERE instrument.uid = %(instrument_uid)s AND device.uid = %(device_uid)s
    ON CONFLICT DO NOTHING
"""

INSERT_CONSTRAINT = """
    INSERT INTO operational_constraint (uid, name, constraint_type, telescope_id, observatory_id)
    SELECT %(uid)s, %(name)s, %(constraint_type)s, (SELECT id FROM telescope WHERE uid = %(telescope_uid)s), id
    FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, constraint_type = excluded.constraint_type, telescope_id = excluded.telescope_id,
            observatory_id = excluded.observatory_id, is_deleted = false
"""

INSERT_SITE = """
    INSERT INTO site (uid, name, observatory_id, latitude)
    SELECT %(uid)s, %(name)s, id, %(latitude_deg)s FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, observatory_id = excluded.observatory_id, latitude = excluded.latitude,
            is_deleted = false
"""

INSERT_FILTER = """
    INSERT INTO filter (uid, name) VALUES (%(uid)s, %(name)s)
    ON CONFLICT (uid) DO UPDATE SET name = excluded.name, is_deleted = false
"""

INSERT_POSITION = """
    INSERT INTO filter_wheel_position (uid, device_id, position, filter_id)
    SELECT %(uid)s, device.id, %(position)s, filter.id
    FROM device, filter
    WHERE device.uid = %(device_uid)s AND filter.uid = %(filter_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET device_id = excluded.device_id, position = excluded.position, filter_id = excluded.filter_id,
            is_deleted = false
"""

INSERT_CAMERA = """
    INSERT INTO ip_camera (uid, name, observatory_id)
    SELECT %(uid)s, %(name)s, id FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, observatory_id = excluded.observatory_id, is_deleted = false
"""

INSERT_INSTALLATION = """
    INSERT INTO sky_node_installation (uid, name, client_id, node_type, telescope_id, observatory_id)
    SELECT %(uid)s, %(name)s, %(client_id)s,
           CASE WHEN %(telescope_uid)s::uuid IS NULL THEN 'observatory' ELSE 'telescope' END,
           (SELECT id FROM telescope WHERE uid = %(telescope_uid)s), id
    FROM observatory WHERE uid = %(observatory_uid)s
    ON CONFLICT (uid) DO UPDATE
        SET name = excluded.name, client_id = excluded.client_id, node_type = excluded.node_type,
            telescope_id = excluded.telescope_id, observatory_id = excluded.observatory_id,
            is_active = true, is_deleted = false, revoked_on = NULL
"""

REVOKE = "UPDATE sky_node_installation SET revoked_on = now() WHERE uid = %s"


@dataclass(frozen=True, slots=True)
class NewSite:
    """Where an observatory stands."""

    uid: UUID
    name: str
    latitude_deg: float | None = None


@dataclass(frozen=True, slots=True)
class NewPosition:
    """What a filter wheel has at a position. Filters belong to nobody: many wheels may have the same."""

    uid: UUID
    position: int
    filter_uid: UUID
    filter_name: str


@dataclass(frozen=True, slots=True)
class NewCamera:
    """A camera that looks at what the telescopes of an observatory share."""

    uid: UUID
    name: str


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device; without a telescope it is shared by those of its observatory. `positions` are a filter wheel's."""

    uid: DeviceUid
    device_type: str
    name: str = ""
    positions: tuple[NewPosition, ...] = ()


@dataclass(frozen=True, slots=True)
class NewInstrument:
    """An instrument of a telescope and the devices it is made of."""

    uid: UUID
    instrument_type: str
    name: str = ""
    parts: tuple[DeviceUid, ...] = ()


@dataclass(frozen=True, slots=True)
class NewConstraint:
    """What has to hold for work to go on; without a telescope, for all of its observatory."""

    uid: UUID
    constraint_type: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class NewTelescope:
    """A telescope with what belongs to it, and the installation that runs it, if any."""

    uid: TelescopeUid
    name: str
    devices: tuple[NewDevice, ...] = ()
    instruments: tuple[NewInstrument, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    install_id: InstallId | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewObservatory:
    """An observatory with what stands there, and the installation that runs what is shared, if any."""

    uid: UUID
    name: str
    telescopes: tuple[NewTelescope, ...] = ()
    devices: tuple[NewDevice, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    install_id: InstallId | None = None
    client_id: str | None = None
    site: NewSite | None = None
    cameras: tuple[NewCamera, ...] = ()


@dataclass(slots=True)
class _Rows:
    telescopes: list[dict[str, object]] = field(default_factory=list)
    devices: list[dict[str, object]] = field(default_factory=list)
    instruments: list[dict[str, object]] = field(default_factory=list)
    parts: list[dict[str, object]] = field(default_factory=list)
    constraints: list[dict[str, object]] = field(default_factory=list)
    sites: list[dict[str, object]] = field(default_factory=list)
    filters: dict[UUID, dict[str, object]] = field(default_factory=dict)
    positions: list[dict[str, object]] = field(default_factory=list)
    cameras: list[dict[str, object]] = field(default_factory=list)
    installations: list[dict[str, object]] = field(default_factory=list)


async def provision(owner_url: str, observatories: Iterable[NewObservatory]) -> None:
    """Write these records, all or none; what has the same uid is made as told here and is allowed in again.

    As the database's owner: the gateway's role may not. A cancelled call still ends what it began. Raises
    `psycopg.Error` if the database refuses.
    """
    await trio.to_thread.run_sync(_provision, owner_url, list(observatories))


async def revoke(owner_url: str, install_id: InstallId) -> None:
    """Take an installation's right to be here, as the hub's administrators do. As `provision`."""
    await trio.to_thread.run_sync(_revoke, owner_url, install_id)


def _provision(owner_url: str, observatories: list[NewObservatory]) -> None:
    rows = _Rows()
    for observatory in observatories:
        _collect(observatory, rows)
    with psycopg.connect(owner_url) as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT_OBSERVATORY, [{"uid": each.uid, "name": each.name} for each in observatories])
        cursor.executemany(INSERT_TELESCOPE, rows.telescopes)
        cursor.executemany(INSERT_DEVICE, rows.devices)
        cursor.executemany(INSERT_INSTRUMENT, rows.instruments)
        cursor.executemany(INSERT_PART, rows.parts)
        cursor.executemany(INSERT_CONSTRAINT, rows.constraints)
        cursor.executemany(INSERT_SITE, rows.sites)
        cursor.executemany(INSERT_FILTER, list(rows.filters.values()))
        cursor.executemany(INSERT_POSITION, rows.positions)
        cursor.executemany(INSERT_CAMERA, rows.cameras)
        cursor.executemany(INSERT_INSTALLATION, rows.installations)


def _collect(observatory: NewObservatory, rows: _Rows) -> None:
    if observatory.site is not None:
        rows.sites.append({**asdict(observatory.site), "observatory_uid": observatory.uid})
    rows.cameras += [{**asdict(camera), "observatory_uid": observatory.uid} for camera in observatory.cameras]
    owners: list[NewObservatory | NewTelescope] = [observatory, *observatory.telescopes]
    for owner in owners:
        telescope_uid = owner.uid if isinstance(owner, NewTelescope) else None
        place = {"telescope_uid": telescope_uid, "observatory_uid": observatory.uid}
        if isinstance(owner, NewTelescope):
            rows.telescopes.append({"uid": owner.uid, "name": owner.name, **place})
            _collect_instruments(owner, rows)
        rows.devices += [
            {"uid": device.uid, "name": device.name, "device_type": device.device_type, **place}
            for device in owner.devices
        ]
        for device in owner.devices:
            _collect_positions(device, rows)
        rows.constraints += [
            {"uid": each.uid, "name": each.name, "constraint_type": each.constraint_type, **place}
            for each in owner.constraints
        ]
        if owner.install_id is not None:
            rows.installations.append(
                {"uid": owner.install_id, "name": owner.name, "client_id": owner.client_id, **place}
            )


def _collect_positions(wheel: NewDevice, rows: _Rows) -> None:
    for each in wheel.positions:
        rows.filters[each.filter_uid] = {"uid": each.filter_uid, "name": each.filter_name}
        rows.positions.append({**asdict(each), "device_uid": wheel.uid})


def _collect_instruments(telescope: NewTelescope, rows: _Rows) -> None:
    for each in telescope.instruments:
        rows.instruments.append(
            {
                "uid": each.uid,
                "name": each.name,
                "instrument_type": each.instrument_type,
                "telescope_uid": telescope.uid,
            }
        )
        rows.parts += [{"instrument_uid": each.uid, "device_uid": part} for part in each.parts]


def _revoke(owner_url: str, install_id: InstallId) -> None:
    with psycopg.connect(owner_url) as connection:
        connection.execute(REVOKE, [install_id])
