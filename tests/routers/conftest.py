"""What holds for every test of this room, as for those of the listeners below it."""

from tests.serving.conftest import expects_errors, no_unexpected_errors

__all__ = ["expects_errors", "no_unexpected_errors"]
