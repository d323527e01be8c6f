"""The drivers that lie: what is wrong with each, and what its site knows of it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import Random

from skygw.sim.devices.device import LATE_MOVES_S
from skygw.sim.faults import Faults

SAYS_STOPPED = "stopped"
DOES_NOT_ANSWER = "The controller does not answer."


@dataclass(frozen=True)
class Lie:
    """`late_moves_s` is what the site knows; `faults` may be drawn anew for each cancel."""

    name: str
    faults: Callable[[Random], Faults]
    late_moves_s: float = LATE_MOVES_S


def _says_stopped(**faults: object) -> Faults:
    return Faults(lies={"state": SAYS_STOPPED, "is_slewing": False}, **faults)  # type: ignore[arg-type]  # by name


HONEST = Lie("honest", lambda _: Faults())

LIES = (
    HONEST,
    Lie("ignores the stop", lambda _: Faults(deaf_to_stop=True)),
    Lie("says stopped and moves on", lambda _: _says_stopped(deaf_to_stop=True)),
    Lie("stops late", lambda chance: _says_stopped(late_stop_s=chance.uniform(0.0, 1.0))),
    Lie("stops much later", lambda chance: _says_stopped(late_stop_s=chance.uniform(1.0, 20.0))),
    Lie("answers nothing", lambda _: Faults(unreadable=True)),
    Lie("answers nothing and moves on", lambda _: Faults(unreadable=True, deaf_to_stop=True)),
    Lie("fails to stop", lambda _: Faults(fails_on_stop=DOES_NOT_ANSWER)),
    Lie("fails to stop and says stopped", lambda _: _says_stopped(fails_on_stop=DOES_NOT_ANSWER)),
    Lie("says where it was before, and moves on", lambda _: _says_stopped(deaf_to_stop=True, asks_every_s=inf)),
    Lie("says where it was a moment ago", lambda chance: _says_stopped(asks_every_s=chance.uniform(0.1, 0.9))),
    Lie(
        "says where it was some time ago, and moves on",
        lambda chance: _says_stopped(deaf_to_stop=True, asks_every_s=chance.uniform(1.0, 10.0)),
        late_moves_s=10.0,
    ),
    Lie("moves again soon", lambda chance: _says_stopped(moves_again_after_s=chance.uniform(0.0, 0.9))),
    Lie(
        "moves again after a while",
        lambda chance: _says_stopped(moves_again_after_s=chance.uniform(0.0, 9.0)),
        late_moves_s=10.0,
    ),
    Lie(
        "moves again whenever it likes",
        lambda chance: _says_stopped(moves_again_after_s=chance.uniform(0.0, 40.0)),
        late_moves_s=inf,
    ),
    Lie(
        "repeats what it said at the stop, and moves on",
        lambda _: _says_stopped(deaf_to_stop=True, frozen_by_stop=True),
        late_moves_s=inf,
    ),
)
"""Those with `inf` are the ones that no reading finds out."""
