"""How much of what a node can take one caller may use, so that whoever comes next finds room."""

KEPT_FOR_OTHERS = 4
"""One part in so many of what the others leave is never one caller's."""


def share_of(room: int) -> int:
    """How much of `room`, which is what the others leave, one caller may use: three quarters, and at least 1.

    As others come a share shrinks: who uses more than it keeps what it has and gets no more. Alone a caller has 3/4 of
    the whole, of two each has 3/7, and of whatever number something is left for the next (Choudhury and Hahne, "Dynamic
    queue length thresholds for shared-memory packet switches", 1998, with α = 3).
    """
    return max(1, room - -(-room // KEPT_FOR_OTHERS))
