"""The steps that show telemetry: a subscriber that loses its line and nothing else, and silence that is noticed."""

from typing import Any
from urllib.parse import urlsplit

import trio

from skygw.client.stream_items import Away, Changed, Gap, Live, Stale
from skygw.client.streams import StreamClient
from skygw.client.subscription import Subscription
from skygw.demo.stage import Stage, StepFailed, expect
from skygw.demo.tokens import service_token
from skygw.protocol.streams import StaleReason, StreamName
from skygw.sim.fault_proxy import FaultProxy

LINES = 30
CUT_AFTER = (7, 19)
"""After so many lines the subscriber loses its line: in the middle of what the node goes on writing."""

BETWEEN_LINES_S = 0.02


def stream_client(stage: Stage, base_url: str) -> StreamClient:
    """For whoever runs it."""
    gateway = stage.gateway
    token = service_token(gateway.key, audience=gateway.settings.internal_audiences[0], scopes=("streams:read",))
    return StreamClient(base_url, token)


async def subscriber_resumes(stage: Stage) -> str:
    """A node writes its log while a subscriber is cut off twice: every line arrives, once and in order."""
    address = urlsplit(stage.gateway.running.internal_url)
    proxy = FaultProxy(address.hostname or "", address.port or 80)
    node = stage.plain.telescope_node
    seen: list[int] = []
    cuts = 0
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(proxy.run)
        client = stream_client(stage, f"http://127.0.0.1:{port}")
        nursery.start_soon(client.run)
        async with client.subscribe(StreamName.TELESCOPE_LOG, filter={"install_id": str(node.install_id)}) as lines:
            await live(lines)
            nursery.start_soon(_write, node.client.publish_log)
            async for item in lines:
                if isinstance(item, Changed) and "demonstration_line" in item.data:
                    seen.append(item.data["demonstration_line"])
                    if len(seen) in CUT_AFTER:
                        proxy.cut()
                elif isinstance(item, Away):
                    cuts += 1
                elif isinstance(item, Gap):
                    raise StepFailed(f"a gap was announced where there is none: {item.reason}")
                if len(seen) >= LINES:
                    break
        nursery.cancel_scope.cancel()
    expect(seen == list(range(LINES)), f"of lines 0 to {LINES - 1} came {seen}")
    expect(cuts >= len(CUT_AFTER), f"the subscriber was to be cut off {len(CUT_AFTER)} times, and was {cuts} times")
    return f"cut off {cuts} times, resumed each time where it was: {LINES} lines, each once and in order"


async def _write(publish_log: Any) -> None:
    for number in range(LINES):
        await publish_log({"log_entry_type": "demonstration", "demonstration_line": number})
        await trio.sleep(BETWEEN_LINES_S)


async def silence_is_noticed(stage: Stage) -> str:
    """A device can no longer be read: who follows it is told so, by itself, and again when it speaks."""
    focuser = stage.plain.site.telescopes[0].focuser
    async with trio.open_nursery() as nursery:
        client = stream_client(stage, stage.gateway.running.internal_url)
        nursery.start_soon(client.run)
        async with client.subscribe(
            StreamName.DEVICE_SNAPSHOT, filter={"device_uid": str(focuser.uid)}, include_unchanged=True
        ) as following:
            last = await live(following)
            if last is None or last.max_silence_s is None:
                raise StepFailed("the focuser has not been heard of")
            limit_s = last.max_silence_s
            focuser.faults.unreadable = True
            try:
                said_at, stale = await _until_stale(following)
            finally:
                focuser.faults.unreadable = False
            expect(stale.reason == StaleReason.SILENT, f"the reason given is {stale.reason}")
            fresh = await _next_value(following)
            expect(fresh.stale is None, f"it spoke again and is still called stale: {fresh.stale}")
        nursery.cancel_scope.cancel()
    return (
        f"silent beyond its {limit_s:.0f} s, told {said_at:.2f} s after its last word (“{stale.reason}”), "
        "and fresh again when it spoke"
    )


async def live(subscription: Subscription) -> Changed | None:
    """Everything up to the present; the last value there was."""
    last: Changed | None = None
    async for item in subscription:
        if isinstance(item, Live):
            return last
        if isinstance(item, Changed):
            last = item
    raise StepFailed("the subscription ended")


async def _until_stale(subscription: Subscription) -> tuple[float, Stale]:
    """How long after its last word the resource was called stale."""
    last_heard = trio.current_time()
    async for item in subscription:
        if isinstance(item, Changed):
            last_heard = trio.current_time()
        if isinstance(item, Stale):
            return trio.current_time() - last_heard, item
    raise StepFailed("the subscription ended")


async def _next_value(subscription: Subscription) -> Changed:
    async for item in subscription:
        if isinstance(item, Changed):
            return item
    raise StepFailed("the subscription ended")
