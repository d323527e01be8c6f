"""An observatory's hardware as rows, and every way in which the hub may change them, drawn from a seed."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg

Row = dict[str, Any]
Change = Callable[[psycopg.Connection, Random, "Hall"], None]


class Hall:
    """Some observatories with telescopes, and the installations that see them. `connection` commits what it is told."""

    def __init__(self, owner_url: str, *, observatories: int = 2, telescopes: int = 2) -> None:
        self.owner_url = owner_url
        self.observatories: list[int] = []
        self.telescopes: list[int] = []
        self.installations: list[UUID] = []
        with psycopg.connect(owner_url) as connection:
            for number in range(observatories):
                observatory = insert(connection, "observatory", name=f"Ridge {number}")
                self.observatories.append(observatory)
                insert(connection, "site", name="Top", observatory_id=observatory, latitude=31.5)
                self.install(connection, observatory, None)
                for _ in range(telescopes):
                    telescope = insert(connection, "telescope", name="Dome", observatory_id=observatory)
                    self.telescopes.append(telescope)
                    self.install(connection, observatory, telescope)
            for _ in range(4):
                insert(connection, "filter", name="V")
        random = Random(1)  # noqa: S311 -- a drawing that can be drawn again
        with psycopg.connect(owner_url) as connection:
            for _ in range(30):
                for make in (make_device, make_position, make_instrument, make_part, make_constraint, make_camera):
                    make(connection, random, self)

    def install(self, connection: psycopg.Connection, observatory: int, telescope: int | None) -> None:
        uid = uuid4()
        insert(
            connection,
            "sky_node_installation",
            uid=uid,
            name="node",
            node_type="observatory" if telescope is None else "telescope",
            observatory_id=observatory,
            telescope_id=telescope,
        )
        self.installations.append(uid)


def insert(connection: psycopg.Connection, table: str, **columns: Any) -> int:
    columns.setdefault("uid", uuid4())
    names = ", ".join(columns)
    places = ", ".join(f"%({name})s" for name in columns)
    row = connection.execute(
        f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id".encode(), columns
    ).fetchone()
    assert row is not None
    return int(row[0])


def ids(connection: psycopg.Connection, table: str, condition: str = "true") -> list[int]:
    return [key for (key,) in connection.execute(f"SELECT id FROM {table} WHERE {condition} ORDER BY id".encode())]  # noqa: S608


def chosen(connection: psycopg.Connection, random: Random, table: str, condition: str = "true") -> int | None:
    found = ids(connection, table, condition)
    return random.choice(found) if found else None


def somewhere(random: Random, hall: Hall) -> Row:
    return {
        "telescope_id": random.choice([None, *hall.telescopes]),
        "observatory_id": random.choice(hall.observatories),
        "name": f"thing {random.random()}",
    }


def make_device(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    kind = random.choice(["filter_wheel", "camera", "mount"])
    insert(connection, "device", device_type=kind, **somewhere(random, hall))


def make_constraint(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    insert(connection, "operational_constraint", constraint_type="storage", **somewhere(random, hall))


def make_camera(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    insert(connection, "ip_camera", **somewhere(random, hall))


def make_position(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    wheel = chosen(connection, random, "device", "device_type = 'filter_wheel'")
    if wheel is not None:
        which = random.choice([None, chosen(connection, random, "filter")])
        insert(connection, "filter_wheel_position", device_id=wheel, position=1, filter_id=which)


def make_instrument(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    telescope = random.choice(hall.telescopes)
    insert(connection, "instrument", name="imager", instrument_type="optical_imager", telescope_id=telescope)


def make_part(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    instrument, device = chosen(connection, random, "instrument"), chosen(connection, random, "device")
    if instrument is not None and device is not None:
        connection.execute(
            "INSERT INTO instrument_device (instrument_id, device_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [instrument, device],
        )


def take_part(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    device = chosen(connection, random, "device")
    connection.execute("DELETE FROM instrument_device WHERE device_id = %s", [device])


def _update(table: str, assignments: Callable[[Random, Hall], Row]) -> Change:
    def change(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
        key = chosen(connection, random, table)
        values = assignments(random, hall)
        settings = ", ".join(f"{name} = %({name})s" for name in values)
        connection.execute(f"UPDATE {table} SET {settings} WHERE id = %(id)s".encode(), {**values, "id": key})  # noqa: S608

    change.__name__ = f"update_{table}"
    return change


def _named(random: Random, hall: Hall) -> Row:
    return {"name": f"name {random.random()}"}


def _deleted(random: Random, hall: Hall) -> Row:
    return {"is_deleted": random.random() < 0.6}


def _moved(random: Random, hall: Hall) -> Row:
    return somewhere(random, hall)


def move_position(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    position = chosen(connection, random, "filter_wheel_position")
    connection.execute(
        "UPDATE filter_wheel_position SET device_id = %s, filter_id = %s WHERE id = %s",
        [
            chosen(connection, random, "device", "device_type = 'filter_wheel'"),
            random.choice([None, chosen(connection, random, "filter")]),
            position,
        ],
    )


def drop_position(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    connection.execute(
        "DELETE FROM filter_wheel_position WHERE id = %s", [chosen(connection, random, "filter_wheel_position")]
    )


def drop_device(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    """With all that refers to it, in one statement."""
    connection.execute(
        """
        WITH positions AS (DELETE FROM filter_wheel_position WHERE device_id = %(id)s),
             parts AS (DELETE FROM instrument_device WHERE device_id = %(id)s)
        SELECT
        """,
        {"id": (device := chosen(connection, random, "device"))},
    )
    connection.execute("DELETE FROM device WHERE id = %s", [device])


def swap_wheel(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    """A wheel goes elsewhere and leaves its positions behind, in one statement."""
    here = chosen(connection, random, "device", "device_type = 'filter_wheel'")
    connection.execute(
        """
        WITH moved AS (UPDATE device SET telescope_id = %(telescope)s WHERE id = %(here)s)
        UPDATE filter_wheel_position SET device_id = %(there)s WHERE device_id = %(here)s
        """,
        {
            "telescope": random.choice([None, *hall.telescopes]),
            "here": here,
            "there": chosen(connection, random, "device", "device_type = 'filter_wheel'"),
        },
    )


def rename_everything(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    connection.execute("UPDATE device SET name = name || '.'")


def rename_uid(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    connection.execute(
        "UPDATE device SET uid = gen_random_uuid() WHERE id = %s", [chosen(connection, random, "device")]
    )


def rebind(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    connection.execute(
        "UPDATE sky_node_installation SET telescope_id = %s, observatory_id = %s WHERE uid = %s "
        "AND telescope_id IS NOT NULL",
        [random.choice(hall.telescopes), random.choice(hall.observatories), random.choice(hall.installations)],
    )


def move_telescope(connection: psycopg.Connection, random: Random, hall: Hall) -> None:
    connection.execute(
        "UPDATE telescope SET observatory_id = %s WHERE id = %s",
        [random.choice(hall.observatories), random.choice(hall.telescopes)],
    )


TOLD_ONE_BY_ONE: Sequence[Change] = (
    make_device,
    make_constraint,
    make_camera,
    make_position,
    make_instrument,
    make_part,
    take_part,
    move_position,
    drop_position,
    drop_device,
    swap_wheel,
    rename_everything,
    *(_update(table, _named) for table in ("observatory", "telescope", "site", "device", "filter", "instrument")),
    *(_update(table, _deleted) for table in ("device", "filter", "instrument", "filter_wheel_position")),
    *(_update(table, _moved) for table in ("device", "operational_constraint", "ip_camera")),
)
"""After which everybody is told what there is of it for them."""

TOLD_AS_A_WHOLE: Sequence[Change] = (rename_uid, rebind, move_telescope, _update("telescope", _deleted))
"""After which everybody concerned is told everything."""
