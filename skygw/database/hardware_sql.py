"""Writes the statements that read the hardware graph: of whatever columns the platform's tables have for this role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

LIST_COLUMNS = """
    SELECT wanted.name AS table_name, a.attname AS column_name, target.relname AS refers_to
    FROM unnest($1::text[]) AS wanted (name)
    JOIN pg_attribute AS a ON a.attrelid = to_regclass(quote_ident(wanted.name)) AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_constraint AS key ON key.conrelid = a.attrelid AND key.contype = 'f' AND key.conkey = ARRAY[a.attnum]
    LEFT JOIN pg_class AS target ON target.oid = key.confrelid
    WHERE has_column_privilege(a.attrelid, a.attnum, 'SELECT')
    ORDER BY wanted.name, a.attnum
"""

TABLES = (
    "observatory",
    "site",
    "telescope",
    "device",
    "instrument",
    "filter",
    "filter_wheel_position",
    "operational_constraint",
    "ip_camera",
)
"""Of which the graph's resources are the rows."""

DISCRIMINATORS = {
    "device": "device_type",
    "instrument": "instrument_type",
    "operational_constraint": "constraint_type",
}
HIDDEN = frozenset({"is_deleted"})

# What is in sight of the observatory `$1`, or of its telescope `$2` alone if there is one: by key, with the telescope it
# belongs to, 0 for what is everybody's. What belongs to a telescope is where the telescope is.
IN_SIGHT = """
    WITH in_telescope AS (
        SELECT id, id AS telescope_id
        FROM telescope
        WHERE observatory_id = $1 AND NOT is_deleted AND ($2::int IS NULL OR id = $2)
    ),
    in_observatory AS (SELECT id, 0 AS telescope_id FROM observatory WHERE id = $1 AND NOT is_deleted),
    in_site AS (SELECT id, 0 AS telescope_id FROM site WHERE observatory_id = $1 AND NOT is_deleted),
    in_device AS ({shared_or_own[device]}),
    in_operational_constraint AS ({shared_or_own[operational_constraint]}),
    in_ip_camera AS ({shared_or_own[ip_camera]}),
    in_instrument AS (
        SELECT instrument.id, in_telescope.telescope_id
        FROM in_telescope
        JOIN instrument ON instrument.telescope_id = in_telescope.id
        WHERE NOT instrument.is_deleted
    ),
    in_filter_wheel_position AS (
        SELECT position.id, in_device.telescope_id, position.filter_id
        FROM in_device
        JOIN filter_wheel_position AS position ON position.device_id = in_device.id
        WHERE NOT position.is_deleted
    ),
    in_filter AS (
        SELECT DISTINCT filter.id, position.telescope_id
        FROM in_filter_wheel_position AS position
        JOIN filter ON filter.id = position.filter_id
        WHERE NOT filter.is_deleted
    )
"""
SHARED_OR_OWN = """
        SELECT id, 0 AS telescope_id FROM {table} WHERE observatory_id = $1 AND telescope_id IS NULL AND NOT is_deleted
        UNION ALL
        SELECT own.id, in_telescope.telescope_id
        FROM in_telescope
        JOIN {table} AS own ON own.telescope_id = in_telescope.id
        WHERE NOT own.is_deleted
"""

RESOURCE = """
    SELECT r.uid, {telescope} AS telescope_id, row_to_json(shown)::text AS body
    FROM {sight} AS sight
    JOIN {table} AS r ON r.id = sight.id
    {joins}
    CROSS JOIN LATERAL (SELECT {members}) AS shown
    {condition}
"""

# Of what an instrument is made: what an observatory's `instrument_device` says of it.
PARTS = """
    ARRAY(
        SELECT device.uid
        FROM instrument_device AS part JOIN device ON device.id = part.device_id
        WHERE part.instrument_id = r.id AND NOT device.is_deleted
        ORDER BY device.uid
    ) AS "deviceUids"
"""

MEMBERS = """string_agg('"' || uid || '":' || body, ',' ORDER BY uid)"""

SEEN = """
    SELECT skygw.graph_seen($1, array_agg(uid), array_agg(telescope_id), array_agg(md5(body)))
    FROM (
        SELECT uid, telescope_id, body FROM resource
        UNION ALL
        SELECT observatory.uid, -1, (
            SELECT coalesce(
                string_agg(concat_ws(' ', bound.uid, bound.node_type, bound.telescope_id), ',' ORDER BY bound.uid), ''
            )
            FROM sky_node_installation AS bound
            WHERE bound.observatory_id = observatory.id
        )
        FROM observatory
        WHERE observatory.id = $1 AND $2::int IS NULL
    ) AS everything
"""


@dataclass(frozen=True, slots=True)
class GraphStatements:
    """All take the observatory's key and the telescope's, null for all of the observatory.

    `everything` yields the members of a JSON object as text, null for none. `among` does so of the uids `$3`, and the
    uids that there are. `seen` writes down what is there, and takes no telescope. `shape` is the same for statements
    that show the same.
    """

    everything: str
    among: str
    seen: str
    shape: str


def write_statements(columns: Mapping[str, Sequence[tuple[str, str | None]]]) -> GraphStatements:
    """Of the columns of each of `TABLES`, in order, each with the table its foreign key refers to, if any."""
    shared_or_own = {
        table: SHARED_OR_OWN.format(table=table) for table in ("device", "operational_constraint", "ip_camera")
    }
    in_sight = IN_SIGHT.format(shared_or_own=shared_or_own)
    once = {table: f"(SELECT DISTINCT id FROM in_{table})" for table in TABLES}
    whole = _resources(columns, sights=once, telescope="0", condition="")
    some = _resources(columns, sights=once, telescope="0", condition="WHERE r.uid = ANY ($3::uuid[])")
    each = _resources(
        columns, sights={table: f"in_{table}" for table in TABLES}, telescope="sight.telescope_id", condition=""
    )
    everything = f"{in_sight}, resource AS ({whole}) SELECT {MEMBERS} FROM resource"
    return GraphStatements(
        everything=everything,
        among=f"{in_sight}, resource AS ({some}) SELECT {MEMBERS} AS members, array_agg(uid) AS uids FROM resource",
        seen=f"{in_sight}, resource AS ({each}) {SEEN}",
        shape=sha256(everything.encode()).hexdigest()[:8],
    )


def _resources(
    columns: Mapping[str, Sequence[tuple[str, str | None]]],
    *,
    sights: Mapping[str, str],
    telescope: str,
    condition: str,
) -> str:
    selects = []
    for table in TABLES:
        members, joins = _members(table, columns.get(table, ()))
        selects.append(
            RESOURCE.format(
                telescope=telescope,
                sight=sights[table],
                table=table,
                joins="\n    ".join(joins),
                members=", ".join(members),
                condition=condition,
            )
        )
    return " UNION ALL ".join(selects)


def _members(table: str, columns: Sequence[tuple[str, str | None]]) -> tuple[list[str], list[str]]:
    """What a resource of this table shows, and the joins that takes."""
    members = {"resourceType": f"'{table}'"}
    joins: list[str] = []
    discriminator = DISCRIMINATORS.get(table)
    ordered = sorted(columns, key=lambda column: column[0] != discriminator)  # the others stay in order
    for column, refers_to in ordered:
        if column in HIDDEN:
            continue
        target = _target(column, refers_to)
        if target is None:
            members.setdefault(_camel(column), f"r.{_quoted(column)}")
        else:
            alias = f"ref{len(joins)}"
            joins.append(f"LEFT JOIN {target} AS {alias} ON {alias}.id = r.{_quoted(column)}")
            members.setdefault(_camel(f"{column.removesuffix('_id')}_uid"), f"{alias}.uid")
    written = [f"{value} AS {_quoted(name)}" for name, value in members.items()]
    return ([*written, PARTS] if table == "instrument" else written), joins


def _target(column: str, refers_to: str | None) -> str | None:
    """The table of the graph a column refers to: by its foreign key, or by its name where there is none."""
    if refers_to is None:
        refers_to = column.removesuffix("_id") if column.endswith("_id") else None
    return refers_to if refers_to in TABLES else None


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
