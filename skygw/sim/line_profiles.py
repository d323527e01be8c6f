"""Lines that sites really have, by name, and how a line is written on a command line (docs/simulation.md)."""

from dataclasses import replace
from math import inf, nan

from skygw.sim.line import Course, Line, Troubles

MBIT = 1_000_000.0
MINUTE_S = 60.0
HOUR_S = 3_600.0

PROFILES = {
    # Ofcom, 4G in five towns, 2014/15: 14.7 Mbit/s down, 13.6 up, 53 ms there and back. A mast far away gives less up.
    # Stalls are handovers and retransmissions of the radio; carriers forget what their address translation held.
    "lte": Line(
        up=Course(bits_per_s=5 * MBIT, latency_s=0.027, jitter_s=0.02, loss=0.0005),
        down=Course(bits_per_s=15 * MBIT, latency_s=0.027, jitter_s=0.02, loss=0.0005),
        troubles=Troubles(
            stall_every_s=MINUTE_S,
            stall_s=1.0,
            cut_every_s=2 * HOUR_S,
            reset_every_s=2 * HOUR_S,
            half_open_every_s=HOUR_S,
        ),
    ),
    # Geostationary: 558 ms there and back at the edge of the footprint (RFC 2488, section 2), and the shared medium's
    # turns; 25/3 Mbit/s is what is sold. Rain takes it away for seconds, and now and then for good.
    "satellite": Line(
        up=Course(bits_per_s=3 * MBIT, latency_s=0.3, jitter_s=0.04, loss=0.002, queue_s=0.5),
        down=Course(bits_per_s=25 * MBIT, latency_s=0.3, jitter_s=0.04, loss=0.002, queue_s=0.5),
        troubles=Troubles(
            stall_every_s=5 * MINUTE_S, stall_s=5.0, cut_every_s=4 * HOUR_S, half_open_every_s=2 * HOUR_S
        ),
    ),
    # ADSL2+ (ITU-T G.992.5) on a long wire; FCC, Measuring Broadband America 2013: 49 ms there and back. Modems hold a
    # second of upload (Netalyzr, IMC 2010); many providers cut the line once a day.
    "dsl": Line(
        up=Course(bits_per_s=1 * MBIT, latency_s=0.024, jitter_s=0.003, loss=0.0002, queue_s=1.0),
        down=Course(bits_per_s=10 * MBIT, latency_s=0.024, jitter_s=0.003, loss=0.0002),
        troubles=Troubles(stall_every_s=30 * MINUTE_S, stall_s=0.5, cut_every_s=24 * HOUR_S),
    ),
}

_COURSE_KEYS = {
    "latency-ms": ("latency_s", 0.001),
    "jitter-ms": ("jitter_s", 0.001),
    "queue-ms": ("queue_s", 0.001),
    "loss": ("loss", 1.0),
    "flip": ("flip", 1.0),
}
"""Both ways are given the same."""

_RATE_KEYS = {"up-kbit": "up", "down-kbit": "down"}

_TROUBLE_KEYS = {
    "stall-every-s": "stall_every_s",
    "stall-s": "stall_s",
    "cut-every-s": "cut_every_s",
    "reset-every-s": "reset_every_s",
    "half-open-every-s": "half_open_every_s",
}

_LIMITS = {
    **dict.fromkeys(_RATE_KEYS, (1.0, 1e6)),  # what is on its way is held in memory
    **dict.fromkeys(("latency-ms", "jitter-ms"), (0.0, 1e4)),
    "queue-ms": (1.0, 1e4),
    **dict.fromkeys(("loss", "flip"), (0.0, 1.0)),
    **dict.fromkeys(_TROUBLE_KEYS, (0.1, 31_536_000.0)),  # more often, and the line would do nothing else; a year
    "stall-s": (0.001, HOUR_S),
}
_MAY_BE_INFINITE = {*_RATE_KEYS, *_TROUBLE_KEYS} - {"stall-s"}
"""A rate without a limit, a trouble that never comes."""

LONGEST_QUOTE = 40  # characters of what is refused

KEYS = (*_RATE_KEYS, *_COURSE_KEYS, *_TROUBLE_KEYS)


def line_of(spec: str) -> Line:
    """A profile, changes to one, or changes to a perfect line: `lte`, `lte,loss=0.01`, `up-kbit=1000,cut-every-s=60`.

    Raises `ValueError` with a sentence that names what there is, or the key and its limits.
    """
    first, *rest = [part.strip() for part in spec.split(",")]
    line = PROFILES.get(first)
    if line is None:
        if "=" not in first:
            raise ValueError(
                f"there is no line “{_quoted(first)}”: known are {', '.join(PROFILES)}, and key=value pairs"
            )
        line, rest = Line(), [first, *rest]
    given: set[str] = set()
    for pair in rest:
        key, _, value = (part.strip() for part in pair.partition("="))
        if key in given:
            raise ValueError(f"“{_quoted(pair)}” is one too many: a line has one {key}")
        line = _changed(line, key, value)
        given.add(key)
    return line


def _changed(line: Line, key: str, text: str) -> Line:
    if key not in KEYS:
        raise ValueError(f"a line has no “{_quoted(key)}”: it has {', '.join(KEYS)}")
    value = _number(key, text)
    if key in _RATE_KEYS:
        name = _RATE_KEYS[key]
        return replace(line, **{name: replace(getattr(line, name), bits_per_s=value * 1_000)})
    if key in _TROUBLE_KEYS:
        return replace(line, troubles=replace(line.troubles, **{_TROUBLE_KEYS[key]: value}))
    name, unit = _COURSE_KEYS[key]
    change = {name: value * unit}
    return replace(line, up=replace(line.up, **change), down=replace(line.down, **change))


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    least, most = _LIMITS[key]
    may_be_infinite = key in _MAY_BE_INFINITE
    if least <= value <= most or (value == inf and may_be_infinite):
        return value
    raise ValueError(
        f"“{_quoted(f'{key}={text}')}” is no line: {key} is a number from {_plain(least)} to {_plain(most)}"
        f"{', or inf' if may_be_infinite else ''}"
    )


def _plain(number: float) -> str:
    """Without an exponent."""
    return f"{number:,.15g}"


def _quoted(text: str) -> str:
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
