"""One-line structured logs on stderr: ours and those of every library, through one chain.

A line is an event: `log.info("node_connected", epoch=7)`. Ids are bound once, where they become known
(`with bound_ids(install_id=…)`), and stand in every line logged in that task and the tasks it starts.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from skygw.observability.redaction import redact

LogFormat = Literal["json", "console"]

_QUIET = ("httpx", "httpcore", "asyncio", "trio-websocket", "yoyo")
"""Libraries that log a line per request, frame or SQL statement at INFO; from them a warning is news."""


def configure_logs(*, log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process. `level` as in the settings.

    Replaces what was set up before; `stream` is stderr unless given. A second call is harmless.
    """
    target = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact,
            _in_order,
            _renderer(log_format, colours=target.isatty()),
        ],
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """When, how bad and what first: lines are read by people too."""
    first = ("timestamp", "level", "event")
    return {**{key: event[key] for key in first if key in event}, **event}


def _renderer(log_format: LogFormat, *, colours: bool) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    # Tracebacks are text by now: redaction has to see them before anybody makes them pretty.
    return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; safe to call before `configure_logs`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bound_ids(**ids: Any) -> Iterator[None]:
    """Put `ids` into every line logged inside, in this task and in tasks it starts meanwhile."""
    with structlog.contextvars.bound_contextvars(**{name: str(value) for name, value in ids.items()}):
        yield
