"""The steps that show a bad line: what was held on it too long, under whose control, and an answer that was lost."""

from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.client.stream_items import Changed
from skygw.client.subscription import Subscription
from skygw.demo.control_steps import UNPARK
from skygw.demo.stage import Stage, StepFailed, expect, until
from skygw.demo.stream_steps import live, stream_client
from skygw.ids import CommandId
from skygw.protocol.streams import StreamName
from skygw.sim.journal import effects_of
from skygw.sim.line import Way

HOLD_S = 2.5
SHORT_LIFE_S = 1.0
SHORT_LEASE_S = 2
LOOK_S = 0.05
CREATED = 201


async def late_frame(stage: Stage) -> str:
    """A command is held in a stalled connection beyond its time: the node notices and does not run it."""
    telescope_uid = stage.stalling.site.telescopes[0].uid
    command_id = CommandId(uuid4())
    async with stage.caller.lease(telescope_uid=telescope_uid) as lease:
        stage.proxy.hold(Way.DOWN)
        try:
            await stage.caller.command(
                UNPARK, command_id=command_id, telescope_uid=telescope_uid, timeout_s=SHORT_LIFE_S, lease=lease
            )
            await trio.sleep(HOLD_S)
        finally:
            stage.proxy.release(Way.DOWN)
        said = await _refused(stage, command_id, "deadline_exceeded")
    return f"held {HOLD_S} s with {SHORT_LIFE_S:g} s to live; the node: “{said}”"


async def control_that_ran_out(stage: Stage) -> str:
    """A command is held in the line until its lease is over: by its own clock the node knows, and does not run it."""
    station, command_id = stage.stalling, CommandId(uuid4())
    telescope_uid = station.site.telescopes[0].uid
    body = {"telescopeUid": str(telescope_uid), "durationS": SHORT_LEASE_S, "onExpiry": "finish"}
    answer = await stage.gateway.http.post("/internal/leases", json=body)
    expect(answer.status_code == CREATED, f"no lease was given: {answer.text[:200]}")
    lease: dict[str, Any] = answer.json()

    def is_known() -> bool:
        return any(held.fence == lease["fence"] for held in station.telescope_node.client.leases)

    await until(is_known)
    stage.proxy.hold(Way.DOWN)
    try:
        await stage.caller.command(
            UNPARK, command_id=command_id, telescope_uid=telescope_uid, lease_uid=lease["leaseUid"]
        )
        await until(lambda: all(held.is_over for held in station.telescope_node.client.leases))
    finally:
        stage.proxy.release(Way.DOWN)
    said = await _refused(stage, command_id, "lease_expired")
    return f"a lease of {SHORT_LEASE_S} s ran out while its command was on the way; the node: “{said}”"


async def _refused(stage: Stage, command_id: CommandId, reason: str) -> str:
    """The node's own words. Nothing may have moved."""
    record = await stage.caller.command_record(command_id)
    while record["state"] != "rejected":
        expect(record["state"] != "completed", "the node carried it out")
        await trio.sleep(LOOK_S)
        record = await stage.caller.command_record(command_id)
    expect(record["error"]["reason"] == reason, f"the node refused for another reason: {record['error']}")
    moved = effects_of(command_id, stage.stalling.journal.entries())
    expect(not moved, "the mount moved on a command that the node refused")
    return str(record["error"]["message"])


async def lost_answer(stage: Stage) -> str:
    """The line dies after a command was written: unknown, until the node is back and says what it did."""
    station, telescope_uid = stage.stalling, stage.stalling.site.telescopes[0].uid
    command_id = CommandId(uuid4())
    async with trio.open_nursery() as nursery:
        client = stream_client(stage, stage.gateway.running.internal_url)
        nursery.start_soon(client.run)
        async with (
            client.subscribe(StreamName.COMMAND_RESULT, filter={"telescope_uid": str(telescope_uid)}) as results,
            stage.caller.lease(telescope_uid=telescope_uid) as lease,
        ):
            await live(results)
            stage.proxy.hold(Way.UP)
            try:
                await stage.caller.command(UNPARK, command_id=command_id, telescope_uid=telescope_uid, lease=lease)
                await until(lambda: bool(effects_of(command_id, station.journal.entries())))
                stage.proxy.cut()
                record = await stage.caller.command_record(command_id)
                while record["outcome"] != "unknown":
                    await trio.sleep(LOOK_S)
                    record = await stage.caller.command_record(command_id)
            finally:
                stage.proxy.release(Way.UP)
            whole_at = trio.current_time()
            told = await _until_completed(results, command_id)
            back_s = trio.current_time() - whole_at
        nursery.cancel_scope.cancel()
    record = await stage.caller.command_record(command_id)
    expect(record["outcome"] == "succeeded", f"the record says {record['outcome']}")
    expect("unknown" in told, f"the subscriber was told {told}")
    moved = effects_of(command_id, station.journal.entries())
    expect(len(moved) == 1, f"the mount unparked {len(moved)} times")
    return (
        f"cut off, and unknown; the node's word came {back_s:.1f} s after the line was whole again; "
        f"a subscriber was told {', '.join(told)}; the mount unparked once"
    )


async def _until_completed(results: Subscription, command_id: CommandId) -> list[str]:
    """Every step of the command that a subscriber was told."""
    told: list[str] = []
    async for item in results:
        if isinstance(item, Changed) and UUID(item.data["command_id"]) == command_id:
            told.append(item.data["status"])
            if told[-1] == "completed":
                return told
    raise StepFailed("the subscription ended")
