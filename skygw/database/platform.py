"""The platform's tables the gateway reads: made in development, only checked in production."""

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from skygw.database.pool import Connection

PLATFORM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "observatory": ("id", "uid", "name", "is_deleted"),
    "telescope": ("id", "uid", "name", "observatory_id", "control_authority", "is_deleted"),
    "sky_node_installation": (
        "id",
        "uid",
        "name",
        "client_id",
        "node_type",
        "telescope_id",
        "observatory_id",
        "is_active",
        "is_deleted",
        "revoked_on",
        "created_on",
    ),
    "device": ("id", "uid", "name", "device_type", "telescope_id", "observatory_id", "is_deleted"),
    "instrument": ("id", "uid", "name", "instrument_type", "configuration_version", "telescope_id", "is_deleted"),
    "instrument_device": ("instrument_id", "device_id"),
    "site": ("id", "uid", "name", "observatory_id", "latitude", "longitude", "elevation", "is_deleted"),
    "filter": ("id", "uid", "name", "is_deleted"),
    "filter_wheel_position": ("id", "uid", "device_id", "position", "filter_id", "is_deleted"),
    "ip_camera": ("id", "uid", "name", "telescope_id", "observatory_id", "is_deleted"),
    "observation_task": (
        "id",
        "uid",
        "task_type",
        "status",
        "observation_id",
        "request_id",
        "instrument_id",
        "instrument_configuration_version",
        "earliest_start_time",
        "planned_start_time",
        "planned_duration",
        "expiration_time",
        "actual_start_time",
        "actual_end_time",
        "completed_on",
        "ota_id",
        "camera_id",
        "accumulated_exposure_time",
        "observatory_acquired_frames",
        "required_exposure_time",
        "total_exposures",
        "max_exposure_time",
        "duration",
        "antenna_id",
        "radio_backend_id",
        "integration_time",
        "central_frequencies",
    ),
    "observation": ("id", "uid", "is_deleted"),
    "observation_result": ("id", "uid", "observation_id", "fulfillment_status", "fulfilled_on"),
    "observation_result_task": ("result_id", "task_id"),
    "observation_asset": (
        "id",
        "uid",
        "observation_id",
        "instrument_id",
        "file_id",
        "role",
        "is_remote",
        "is_transferrable",
        "transfer_state",
        "transfer_progress",
        "transfer_error",
        "last_transfer_attempt",
        "remote_file_path",
    ),
    "operational_constraint": (
        "id",
        "uid",
        "name",
        "constraint_type",
        "telescope_id",
        "observatory_id",
        "is_deleted",
    ),
}
"""What the SQL in this package reads, by table. A test holds it to `platform.sql`."""

LIST_COLUMNS = """
    SELECT wanted.name AS table_name,
           a.attname AS column_name,
           has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS readable
    FROM unnest($1::text[]) AS wanted (name)
    LEFT JOIN pg_attribute a
        ON a.attrelid = to_regclass(wanted.name) AND a.attnum > 0 AND NOT a.attisdropped
"""


async def check_platform(connection: "Connection") -> list[str]:
    """What the gateway misses on this database, one sentence each; empty if everything is there.

    Columns the connection's role may not read are named as well. `RoutingUnavailable` as any query.
    """
    rows = await connection.fetch(LIST_COLUMNS, list(PLATFORM_COLUMNS))
    return _what_is_missing({(row["table_name"], row["column_name"]): row["readable"] for row in rows})


def check_platform_blocking(connection: psycopg.Connection) -> list[str]:
    """The same over psycopg, for the migrations."""
    rows = connection.execute(LIST_COLUMNS.replace("$1", "%s"), [list(PLATFORM_COLUMNS)]).fetchall()
    return _what_is_missing({(table, column): readable for table, column, readable in rows})


def create_platform(owner_url: str) -> None:
    """Make the platform's tables as assumed, for development. Blocking. What is there is left alone."""
    statements = files("skygw.database").joinpath("platform.sql").read_text()
    with psycopg.connect(owner_url) as connection:
        connection.execute(statements.encode())


def _what_is_missing(seen: Mapping[tuple[str, str | None], bool]) -> list[str]:
    there = {table for table, column in seen if column is not None}
    missing = [f"the table {table} is missing" for table in PLATFORM_COLUMNS if table not in there]
    for table, columns in PLATFORM_COLUMNS.items():
        if table not in there:
            continue
        for column in columns:
            if (table, column) not in seen:
                missing.append(f"the column {table}.{column} is missing")
            elif not seen[table, column]:
                missing.append(f"the column {table}.{column} may not be read by this role")
    return missing
