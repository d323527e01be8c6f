"""Log lines are one line each, carry the ids bound to them, and hold neither secrets nor payloads."""

import io
import json
import logging
from typing import Any

import pytest

from skygw.observability.logs import LogFormat, bound_ids, configure_logs, get_logger

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl"


def logs(log_format: LogFormat = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logs(log_format=log_format, level=level, stream=stream)
    return stream


def only_line(stream: io.StringIO) -> dict[str, Any]:
    [line] = stream.getvalue().splitlines()
    read: dict[str, Any] = json.loads(line)
    return read


def test_an_event_is_one_json_line_that_begins_with_when_and_what() -> None:
    stream = logs()
    get_logger("skygw.nodes").info("node_connected", epoch=7)
    line = only_line(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["level"], line["epoch"], line["logger"]) == ("node_connected", "info", 7, "skygw.nodes")
    assert line["timestamp"].endswith("Z")


def test_a_librarys_lines_go_the_same_way() -> None:
    stream = logs()
    logging.getLogger("hypercorn.error").warning("Running on %s", "127.0.0.1")
    assert only_line(stream)["event"] == "Running on 127.0.0.1"


def test_what_a_standard_logger_is_given_beside_its_message_stands_in_the_line_and_is_redacted() -> None:
    stream = logs()
    logging.getLogger("skygw.nodes").info("node gone", extra={"code": 4002, "reason": "silent", "token": JWT})
    line = only_line(stream)
    assert (line["event"], line["code"], line["reason"]) == ("node gone", 4002, "silent")
    assert JWT not in stream.getvalue()


def test_the_standard_librarys_tracebacks_are_one_line_too() -> None:
    stream = logs()
    try:
        int("nothing")
    except ValueError:
        logging.getLogger("quart.app").exception("Exception on request")
    line = only_line(stream)
    assert line["exception"].endswith("invalid literal for int() with base 10: 'nothing'")


def test_bound_ids_stand_in_every_line_inside_and_in_none_after() -> None:
    stream = logs()
    log = get_logger("skygw.nodes")
    with bound_ids(install_id=4):
        log.info("inside")
    log.info("after")
    inside, after = (json.loads(line) for line in stream.getvalue().splitlines())
    assert inside["install_id"] == "4"
    assert "install_id" not in after


def test_a_library_that_logs_every_request_is_heard_only_when_it_warns() -> None:
    stream = logs()
    logging.getLogger("httpx").info("HTTP Request: GET /jwks")
    logging.getLogger("yoyo.migrations").info(" - applying step 6")
    assert stream.getvalue() == ""
    logging.getLogger("yoyo.migrations").warning("odd")
    assert only_line(stream)["event"] == "odd"


def test_lines_below_the_level_are_not_written() -> None:
    stream = logs(level="warning")
    get_logger("skygw.nodes").info("quiet")
    logging.getLogger("anything").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "fields",
    [
        {"token": "hunter2"},
        {"Authorization": "Bearer hunter2"},
        {"client_secret": "hunter2"},
        {"database-password": "hunter2"},
        {"headers": {"authorization": "hunter2"}},
        {"headers": [{"set-cookie": "hunter2"}]},
        {"note": f"got {JWT.replace('c2lnbmF0dXJl', 'hunter2')}"},
        {"note": "authorization was bearer hunter2hunter2"},
        {"url": "postgresql://gateway:hunter2@db/skynet"},
        {"url": "/v1/ws/node?access_token=hunter2&x=1"},
        {"payload": "hunter2"},
        {"command": {"command_type": "mount.point", "target": "hunter2"}},
        {"chunk": b"hunter2"},
    ],
)
def test_no_secret_and_no_payload_is_written(log_format: LogFormat, fields: dict[str, Any]) -> None:
    stream = logs(log_format)
    get_logger("skygw.auth").warning("refused", **fields)
    assert "refused" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_secrets_in_a_librarys_message_and_in_a_traceback_are_blotted_out() -> None:
    stream = logs()
    try:
        int(JWT)
    except ValueError:
        logging.getLogger("jwt").exception("could not read %s", JWT)
    assert JWT not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") == 2


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_peer_can_neither_forge_a_line_nor_steer_the_terminal(log_format: LogFormat) -> None:
    stream = logs(log_format)
    get_logger("skygw.nodes").warning("node_refused", version="1.0\n{}\x1b[2J\x9b31m\u202e", **{"ke\ny": "v"})
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert not set(written) & {"\x1b", "\x9b", "\u202e"}


def test_a_huge_value_is_cut() -> None:
    stream = logs()
    get_logger("skygw.nodes").info("big", text="x" * 100_000, many=list(range(10_000)))
    assert len(stream.getvalue()) < 5_000
