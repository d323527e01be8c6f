"""A flood of peers that are cut becomes so many lines and a number."""

import logging

import pytest
import trio
from trio.testing import MockClock

from skygw.serving.sparing_log import EVERY_S, LINES, SparingLog

logger = logging.getLogger("skygw.serving")


async def test_what_is_too_much_is_counted_and_said_once(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = SparingLog(logger)
    for number in range(LINES + 7):
        log.warning("slow_header", "cut %d", number, extra={})
    log.warning("not_reading", "cut as well", extra={})
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"cut {number}" for number in range(LINES)] + ["cut as well"]

    mock_clock.jump(EVERY_S)
    await trio.lowlevel.checkpoint()
    log.warning("slow_header", "cut again", extra={})
    assert [record.getMessage() for record in caplog.records][-2:] == [
        "7 lines more of slow_header were left out",
        "cut again",
    ]
