"""The node of docs/node.md, run as it stands against a gateway that the test plays."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from skygw.protocol.gateway_frames import Ack
from skygw.protocol.node_frames import PublishEvent, PublishLog, PublishSnapshot
from skygw.protocol.streams import EventLive, SubscribeStream
from tests.fakes.following_hub import told
from tests.fakes.gateway import FakeSession, fake_gateway

PAGE = (Path(__file__).parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
MOUNT, SENSOR, INSTALL_ID = UUID(int=1), UUID(int=2), UUID(int=3)


def main_of_the_page(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]) -> Callable[[], Awaitable[None]]:
    [example] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r'environ\["(\w+)"\]', example)) == set(settings)
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    names: dict[str, Any] = {"__name__": "my_node"}
    exec(compile(example, "docs/node.md", "exec"), names)  # noqa: S102 - our own page
    main: Callable[[], Awaitable[None]] = names["main"]
    return main


async def snapshot(session: FakeSession, *, weather_known: bool) -> PublishSnapshot:
    while True:
        said = await session.hear(PublishSnapshot)
        if said.data.value["weatherKnown"] is weather_known:
            return said


async def test_it_publishes_its_state_and_its_reports_and_knows_of_the_weather(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("token-1\n")
    async with fake_gateway() as gateway, trio.open_nursery() as nursery:
        settings = {
            "GATEWAY_URL": gateway.url,
            "INSTALL_ID": INSTALL_ID,
            "MOUNT_UID": MOUNT,
            "SENSOR_UID": SENSOR,
            "TOKEN_FILE": tmp_path / "token",
            "TOKEN_LIFETIME_S": 3600,
            "STATE_DIR": tmp_path / "state",
        }
        nursery.start_soon(main_of_the_page(monkeypatch, settings))
        session = await gateway.accept()
        await session.welcome()
        first = await snapshot(session, weather_known=False)
        while len(durable := [one for one in session.heard if isinstance(one, PublishEvent | PublishLog)]) < 2:
            await session.next()
        while not (asked := [one for one in session.heard if isinstance(one, SubscribeStream)]):
            await session.next()
        await session.say(Ack(seq=2, outbox_uid=session.hello.outbox_uid))
        subscription_id = asked[0].subscription_id
        await session.say(told(subscription_id, uid=SENSOR, t_ms=session.t_ms(), age_ms=40, state="safe"))
        await session.say(EventLive(subscription_id=subscription_id, position="s1"))
        then = await snapshot(session, weather_known=True)
        nursery.cancel_scope.cancel()

    assert (session.token, session.hello.install_id) == ("Bearer token-1", INSTALL_ID)
    assert [type(report) for report in durable] == [PublishEvent, PublishLog]
    assert asked[0].asked_filter().device_uid == (SENSOR,)
    assert first.data.value["uid"] == then.data.value["uid"] == str(MOUNT)
    assert then.max_silence_s == 30
