"""How large the chunks of direct responses should be: at the pace of the uplink, none may hold the writer for long."""

from typing import Final

from skygw.protocol.limits import KIB, MAX_CHUNK_PAYLOAD

SMALLEST: Final = 4 * KIB
FIRST: Final = 32 * KIB
LONGEST_S: Final = 0.2
"""A stop's proof waits this long behind a chunk at most, once the pace is known; shorter than half of it may grow."""


class PieceSize:
    """Halved after a write that took too long, doubled after one that took little. `bytes` is the size now."""

    def __init__(self) -> None:
        self.bytes = FIRST

    def wrote(self, count: int, *, took_s: float) -> None:
        """One write of `count` bytes took so long to be handed to the kernel."""
        if took_s > LONGEST_S:
            self.bytes = max(SMALLEST, self.bytes // 2)
        elif count >= self.bytes and took_s < LONGEST_S / 4:
            self.bytes = min(MAX_CHUNK_PAYLOAD, self.bytes * 2)
