"""A moment for frames that must carry one and whose time is not what the test is about."""

from datetime import UTC, datetime

NOW = datetime(2026, 7, 1, 3, 0, tzinfo=UTC)
