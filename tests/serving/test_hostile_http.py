"""Each row of the table of hostile HTTP gets its answer, ends its own connection alone, and is no fault of ours."""

import json
import logging

import pytest

from skygw.serving import End
from tests.serving.apps import UPGRADE, EchoApp
from tests.serving.hostile_http import CLOSED, FRAME, TABLE, TAKEN, Hostile, Then, answer_to
from tests.serving.served import serving


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_it_gets_the_answer_it_must_get_and_the_bystanders_go_on(
    row: Hostile, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(EchoApp()) as served, served.peer() as bystander, served.peer() as socket:
        await socket.send(UPGRADE + b"\r\n")
        await socket.read_until(b"\r\n\r\n")
        assert await bystander.ask() == (200, b"hello")
        status, body, is_closed = await answer_to(served.listener.address, row)
        assert status == row.answer, body
        if status not in (TAKEN, CLOSED):
            assert is_closed
            assert json.loads(body)["outcome"] == "not_sent"
            await served.metrics.until_closed(End.PROTOCOL)
        elif row.then is Then.FIN:
            await served.metrics.until_closed(End.PEER_LEFT)
        assert await bystander.ask() == (200, b"hello")
        await socket.send(FRAME)
        assert await socket.read_exactly(7) == b"\x81\x05hello"
        assert served.metrics.closed_by[End.FAULT] == 0
    records = [record for record in caplog.records if record.name == "skygw.serving"]
    assert {record.levelno for record in records} <= {logging.WARNING}
    assert [record.exc_info for record in records if record.exc_info] == []
    assert capfd.readouterr() == ("", "")


def test_the_table_names_each_thing_once() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    assert all(row.why for row in TABLE)
