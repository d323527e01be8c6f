"""Warnings about peers, so many and no more: a flood of the same must not become a flood of log lines."""

import logging
from dataclasses import dataclass

import trio

LINES = 20
EVERY_S = 10.0


@dataclass
class _Window:
    begun_at: float = float("-inf")
    lines: int = 0


class SparingLog:
    """Lets `LINES` of each kind through in `EVERY_S`; the first one after that says how many were left out."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._windows: dict[str, _Window] = {}

    def warning(self, kind: str, text: str, *arguments: object, extra: dict[str, object]) -> None:
        """`kind` is of a closed set."""
        window = self._windows.setdefault(kind, _Window())
        now = trio.current_time()
        if now >= window.begun_at + EVERY_S:
            if window.lines > LINES:
                self._logger.warning("%d lines more of %s were left out", window.lines - LINES, kind, extra=extra)
            window.begun_at, window.lines = now, 0
        window.lines += 1
        if window.lines <= LINES:
            self._logger.warning(text, *arguments, extra=extra)
