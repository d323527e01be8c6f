"""Claims in PostgreSQL: of two who want one task, whichever replica they ask, one gets it."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import asyncpg

from skygw.database.pool import Connection
from skygw.database.task_ledger import Members, add_report
from skygw.database.task_rows import CLAIM_HOLDS, LEASE_ON_TELESCOPE, OF_TASKS, find_tasks
from skygw.errors import ConfigurationChanged, GatewayError, LeaseHeld, LocalControl, NotFound
from skygw.ids import TaskUid
from skygw.observing.tasks import SILENCE_S, Claimed, Observer, PassedOver, Report, ReportKind
from skygw.telemetry.value import utc

ATTEMPTS = 5
EXTENDED_S = SILENCE_S + 60.0
"""What is written for all who are here or were heard of, once a minute: it must last until the next time."""
# Two who make the same claim at once: the second waits, and finds it made.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2::uuid::text, 0))"

WHO_IS_IN_THE_WAY = f"""
    SELECT telescope.control_authority, held.*
    FROM telescope
    LEFT JOIN LATERAL (
        SELECT lease.resource_uid, lease.service, lease.actor_uid, lease.actor_kind, lease.expires_at,
               extract(epoch FROM lease.expires_at - clock_timestamp())::double precision AS left_s
        {LEASE_ON_TELESCOPE}
        ORDER BY lease.expires_at DESC
        LIMIT 1
    ) AS held ON true
    WHERE telescope.uid = $1
"""  # noqa: S608 -- constants of ours

ELIGIBLE = f"""
    {OF_TASKS}
    WHERE telescope.uid = ANY ($1::uuid[])
      AND NOT instrument.is_deleted
      AND task.status = 'pending'
      AND (task.earliest_start_time IS NULL OR task.earliest_start_time <= now())
      AND (task.expiration_time IS NULL OR now() < task.expiration_time)
      AND NOT EXISTS (SELECT FROM skygw.task_claim AS claim WHERE claim.task_uid = task.uid AND {CLAIM_HOLDS})
"""
IS_CONFIGURED = "coalesce(task.instrument_configuration_version = instrument.configuration_version, true)"

# A rival may have claimed, and let go of, what is locked here and looked free a moment ago: the key of the claims
# decides. Whoever lost one of those sees it in what is returned, and tries again.
CLAIM = f"""
    WITH wanted AS (
        SELECT task.uid
        {ELIGIBLE} AND {IS_CONFIGURED}
        ORDER BY coalesce(task.planned_start_time, task.earliest_start_time, '-infinity'), task.id
        LIMIT $2
        FOR UPDATE OF task SKIP LOCKED
    ), claimed AS (
        INSERT INTO skygw.task_claim AS claim (task_uid, claim_uid, install_id, claimed_at, expires_at)
        SELECT uid, $3, $4, now(), now() + make_interval(secs => $5) FROM wanted
        ON CONFLICT (task_uid) DO UPDATE
            SET claim_uid = excluded.claim_uid, install_id = excluded.install_id, claimed_at = excluded.claimed_at,
                expires_at = excluded.expires_at, started_at = NULL, ended_at = NULL, ended_status = NULL,
                reason_code = NULL, reschedulable = NULL, summary = NULL, phase = NULL, message = NULL,
                reported_at = NULL, reported_by = NULL, estimated_end_time = NULL, progress = NULL
            WHERE NOT {CLAIM_HOLDS}
        RETURNING task_uid
    )
    SELECT wanted.uid, claimed.task_uid IS NOT NULL AS is_claimed
    FROM wanted
    LEFT JOIN claimed ON claimed.task_uid = wanted.uid
"""  # noqa: S608 -- constants of ours

FIND_PASSED_OVER = f"""
    SELECT task.uid, task.instrument_configuration_version AS made_for, instrument.configuration_version AS current
    {ELIGIBLE} AND NOT {IS_CONFIGURED}
    ORDER BY task.id
    LIMIT $2
"""

RELEASE = "DELETE FROM skygw.task_claim WHERE task_uid = $1 AND install_id = $2 AND ended_at IS NULL"

EXTEND = """
    UPDATE skygw.task_claim AS claim
    SET expires_at = greatest(claim.expires_at, now() + make_interval(secs => $2))
    WHERE claim.task_uid IN (
        SELECT open.task_uid
        FROM skygw.task_claim AS open
        JOIN observation_task AS task ON task.uid = open.task_uid AND task.status = 'pending'
        WHERE open.install_id = ANY ($1::uuid[]) AND open.ended_at IS NULL AND open.started_at IS NULL
        FOR UPDATE OF open SKIP LOCKED
    )
"""


async def check_nobody_is_in_the_way(connection: Connection, observer: Observer, refusal: GatewayError | None) -> None:
    """Raises `LocalControl`, `LeaseHeld`, the `refusal`, `NotFound`."""
    row = await connection.fetchrow(WHO_IS_IN_THE_WAY, observer.telescope_uid)
    if row is None:
        raise NotFound(f"The hub's records have no telescope {observer.telescope_uid}.")
    authority = row["control_authority"]
    if authority != "remote":
        raise LocalControl(
            f"The control authority of this telescope is {authority}; tasks are claimed while it is remote.",
            retry_after_s=60.0,
            details={"controlAuthority": authority},
        )
    if row["resource_uid"] is not None:
        raise _held(row)
    if refusal is not None:
        raise refusal


def _held(row: asyncpg.Record) -> LeaseHeld:
    holder: Members = {"service": row["service"]}
    if row["actor_uid"] is not None:
        holder["actor"] = {"uid": row["actor_uid"], "kind": row["actor_kind"]}
    return LeaseHeld(
        f"{row['service']} has control of this telescope, or of what it shares, for {row['left_s']:.0f} s more, unless "
        "the lease is renewed.",
        retry_after_s=row["left_s"],
        details={"holder": holder, "uid": str(row["resource_uid"]), "expiresAt": row["expires_at"].isoformat()},
    )


async def claim_free(connection: Connection, observer: Observer, report: Report, at_most: int) -> Claimed:
    telescopes = [observer.telescope_uid]
    uids: list[UUID] = []
    for _ in range(ATTEMPTS):
        rows = await connection.fetch(
            CLAIM, telescopes, at_most - len(uids), report.uid, observer.install_id, SILENCE_S
        )
        uids += [row["uid"] for row in rows if row["is_claimed"]]
        if len(uids) == at_most or all(row["is_claimed"] for row in rows):
            break
    passed_over: tuple[PassedOver, ...] = ()
    if len(uids) < at_most:
        found = await connection.fetch(FIND_PASSED_OVER, telescopes, at_most)
        passed_over = tuple(PassedOver(TaskUid(row["uid"]), row["made_for"], row["current"]) for row in found)
    if not uids:
        return Claimed((), None, passed_over)
    tasks = await find_tasks(connection, telescopes, uids)
    expires_at = min(task.claim.expires_at for task in tasks if task.claim is not None)
    answer = {
        "taskUids": [str(task.uid) for task in tasks],
        "claimExpiresAt": utc(expires_at),
        "passedOver": [[str(each.uid), each.made_for, each.current] for each in passed_over],
    }
    said = Report(report.uid, report.digest, {**report.said, "task_uids": answer["taskUids"]})
    await add_report(connection, observer, said, ReportKind.CLAIM, answer)
    return Claimed(tasks, expires_at, passed_over)


async def granted(connection: Connection, observer: Observer, answer: Members) -> Claimed:
    """The claim that was granted before, its tasks as they are now."""
    tasks = await find_tasks(connection, observer.telescopes, [UUID(uid) for uid in answer["taskUids"]])
    expires_at = datetime.fromisoformat(answer["claimExpiresAt"])
    passed_over = [PassedOver(TaskUid(UUID(uid)), made, current) for uid, made, current in answer["passedOver"]]
    return Claimed(tasks, expires_at, passed_over)


def configuration_changed(passed_over: Collection[PassedOver]) -> ConfigurationChanged:
    return ConfigurationChanged(
        "The instrument has changed since these tasks were made for it: the hub has to make them anew.",
        details={
            "tasks": [
                {
                    "taskUid": str(each.uid),
                    "instrumentConfigurationVersion": each.made_for,
                    "configurationVersion": each.current,
                }
                for each in passed_over
            ]
        },
    )
