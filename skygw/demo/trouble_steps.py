"""The steps that show the bad case: callers that leave, silent nodes, a database that dies, a second machine."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import trio

from skygw.demo.hardware_steps import COMMAND_S, SLOWNESS, command
from skygw.demo.stage import Stage, StepFailed, expect, one_device, until
from skygw.errors import DeadlineExceeded
from skygw.ids import CommandId, InstanceUid
from skygw.protocol.close_codes import CloseCode
from skygw.sim.journal import Action, effects_of
from skygw.sim.node import SimulatedNode

SILENT_CALL_S = 1.5
LATENESS_S = 1.0
"""What a loaded machine may add to a deadline before we call it missed."""

STOP_WITHIN_S = 1.0
LOOK_S = 0.1
OK = 200


async def hang_up(stage: Stage) -> str:
    """A caller hangs up, and the node is told to stop working for it."""
    node = stage.plain.telescope_node
    node.faults.silent = True
    begun, abandoned = node.operations.begun, len(node.operations.abandoned)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask_for_the_log, stage, 60.0)
        await until(lambda: node.operations.begun > begun)
        nursery.cancel_scope.cancel()
    left_at = trio.current_time()
    await until(lambda: len(node.operations.abandoned) > abandoned)
    node.faults.silent = False
    return f"the node heard of it {1000 * (trio.current_time() - left_at):.0f} ms after the caller had gone"


async def silent_node(stage: Stage) -> str:
    """A node never answers: the call ends at its deadline, and says what is known."""
    node = stage.plain.telescope_node
    node.faults.silent = True
    began = trio.current_time()
    try:
        await _ask_for_the_log(stage, SILENT_CALL_S)
    except DeadlineExceeded as error:
        took_s = trio.current_time() - began
        outcome = error.outcome
    else:
        raise StepFailed("the silent node answered")
    finally:
        node.faults.silent = False
    expect(
        SILENT_CALL_S - 0.05 <= took_s <= SILENT_CALL_S + LATENESS_S,
        f"the call ended after {took_s:.2f} s, its deadline was {SILENT_CALL_S} s",
    )
    return f"asked for {SILENT_CALL_S:.3f} s, ended after {took_s:.3f} s with outcome “{outcome.value}”"


async def _ask_for_the_log(stage: Stage, timeout_s: float) -> None:
    node = stage.plain.telescope_node.install_id
    async with stage.caller.direct(node, "log.tail", {"lines": 5}, timeout_s=timeout_s) as answer:
        await answer.read()


async def say_it_twice(stage: Stage) -> str:
    """The same command id, several times over: the hardware moves once, and the device journal is the judge."""
    command_id = CommandId(uuid4())
    records: list[dict[str, object]] = []

    async def send() -> None:
        records.append(
            await stage.caller.command(
                {"command_type": "focuser.move", "position": 12_345},
                command_id=command_id,
                telescope_uid=stage.plain.site.telescopes[0].uid,
                lease=stage.lease,
                wait_s=COMMAND_S,
            )
        )

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send)
    await send()
    expect({record["outcome"] for record in records} == {"succeeded"}, f"the answers differ: {records}")
    moves = effects_of(command_id, stage.plain.journal.entries())
    expect(len(moves) == 1, f"the focuser moved {len(moves)} times")
    duplicates = sum(bool(record["duplicate"]) for record in records)
    return f"sent {len(records)} times, {duplicates} answered as duplicates, the focuser moved once"


async def stop_without_database(stage: Stage) -> str:
    """PostgreSQL is killed while a mount slews: the stop gets through, and is in the ledger once it is back."""
    cluster = stage.gateway.running.cluster
    if cluster is None:
        raise StepFailed("there is no embedded PostgreSQL to kill")
    telescope = stage.plain.site.telescopes[0]
    mount = telescope.mount
    mount.faults.slow = SLOWNESS
    target = {"position_type": "horizontal", "alt_deg": 40.0, "az_deg": 200.0}
    await command(stage, {"command_type": "mount.point", "target": target}, wait_s=0)
    await until(lambda: mount.is_moving)
    await cluster.kill()
    stop_id = CommandId(uuid4())
    sent_at = datetime.now(UTC)
    record = await stage.caller.command(
        {"command_type": "mount.stop"}, command_id=stop_id, telescope_uid=telescope.uid, wait_s=COMMAND_S
    )
    answered_s = (datetime.now(UTC) - sent_at).total_seconds()
    database_was_away = cluster.pid is None
    mount.faults.slow = 1.0
    await cluster.start()
    stops = [
        entry
        for entry in stage.plain.journal.entries()
        if entry.action is Action.SLEW_STOPPED and entry.command_id == str(stop_id)
    ]
    expect(database_was_away, "the database was there: nothing is shown")
    expect(len(stops) == 1, "the device journal knows of no slew that was stopped")
    stopped_s = (datetime.fromisoformat(stops[0].wall_time) - sent_at).total_seconds()
    expect(stopped_s <= STOP_WITHIN_S, f"the mount stood only {stopped_s:.2f} s after the stop was sent")
    proof = one_device(record)
    expect(
        (proof["state"], proof["basis"]) == ("stopped", "read_back"), f"read back: {proof['state']} ({proof['basis']})"
    )
    back_at = trio.current_time()
    while not await _recorded_late(stage, stop_id):  # noqa: ASYNC110 - the ledger has no event for us
        await trio.sleep(LOOK_S)
    return (
        f"stood after {stopped_s * 1000:.0f} ms, proof after {answered_s * 1000:.0f} ms with PostgreSQL dead; "
        f"in the ledger as recordedLate {trio.current_time() - back_at:.1f} s after it was back"
    )


async def _recorded_late(stage: Stage, command_id: CommandId) -> bool:
    """Whether the ledger has it: a page is read from the database, one command perhaps from memory."""
    answer = await stage.gateway.http.get("/internal/commands", params={"size": 20})
    items = answer.json()["items"] if answer.status_code == OK else []
    return any(
        item["commandId"] == str(command_id) and item["recordedLate"] and item["state"] == "completed" for item in items
    )


async def second_machine(stage: Stage) -> str:
    """Another machine with the same token does not get the telescope."""
    first = stage.plain.telescope_node
    before = await stage.caller.node(first.install_id)
    clone = SimulatedNode(
        replace(first.post, instance_uid=InstanceUid(uuid4())),
        stage.plain.site,
        stage.plain.frames,
        habits=stage.gateway.habits(),
        state_dir=stage.directory / "clone",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clone.run)
        await until(lambda: clone.client.last_end is not None)
        nursery.cancel_scope.cancel()
    end = clone.client.last_end
    after = await stage.caller.node(first.install_id)
    expect(end is not None and end.code == CloseCode.DUPLICATE_INSTANCE, f"the second machine was told: {end}")
    expect(after["connected"] and after["epoch"] == before["epoch"], "the first machine lost its session to the second")
    return f"turned away with {CloseCode.DUPLICATE_INSTANCE}, the first machine keeps epoch {after['epoch']}"
