"""How large the chunks of direct responses should be: at the pace of the uplink, none may hold the writer for long."""

from typing import Final

from skygw.protocol.limits import KIB, MAX_CHUNK_PAYLOAD

SMALLEST: Final = 4 * KIB
LONGEST_S: Final = 0.2
"""A stop's proof waits this long behind a write at most, once the pace is known."""
QUICK_S: Final = LONGEST_S / 4
QUICK_WRITES: Final = 4
"""So many in a row before the size doubles: the first ones only fill buffers, and are quick on any line."""


class PieceSize:
    """`bytes` is the size now. It begins small, since what is cut too large for the line can only be waited for."""

    def __init__(self) -> None:
        self.bytes = SMALLEST
        self._quick = 0

    def wrote(self, count: int, *, took_s: float) -> None:
        """One write of `count` bytes took so long to be handed to the kernel."""
        if took_s > LONGEST_S:
            self.bytes = max(SMALLEST, self.bytes // 2)
            self._quick = 0
        elif took_s > QUICK_S:
            self._quick = 0
        elif count >= self.bytes:
            self._quick += 1
            if self._quick == QUICK_WRITES:
                self.bytes = min(MAX_CHUNK_PAYLOAD, self.bytes * 2)
                self._quick = 0
