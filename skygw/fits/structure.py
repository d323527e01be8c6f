"""Walks the blocks of a FITS file and finds it whole, or says what is wrong, without reading any of its data.

FITS standard 4.0: https://fits.gsfc.nasa.gov/fits_standard.html (§3 organisation, §4.4.1 mandatory keywords).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from skygw.fits.finding import NotFits

BLOCK = 2880
CARD = 80
MOST_HEADER_BYTES = 728 * BLOCK
"""Of one header, 2 MiB: 26,000 cards. The longest of real frames, with the history of a whole pipeline, are a tenth."""
MOST_HEADERS_BYTES = 8 * MOST_HEADER_BYTES
MOST_HDUS = 4096
MOST_AXES = 999

_VALUE = re.compile(rb"[A-Z0-9_-]{1,8} *= +([^/]*)")
_BITPIX = frozenset({8, 16, 32, 64, -32, -64})

Read = Callable[[int, int], bytes]
"""So many bytes from an offset, fewer where the file ends."""


@dataclass(frozen=True, slots=True)
class Hdu:
    """A header and how long its data are. `cards` is the header's bytes up to and with its END."""

    number: int
    cards: bytes
    axes: tuple[int, ...]
    data_offset: int
    data_bytes: int


def walk(read: Read, size: int) -> Iterator[Hdu]:
    """The HDUs of a file of `size` bytes. Raises `NotFits` at the first thing that is wrong."""
    offset = headers_bytes = number = 0
    while offset < size or number == 0:
        if number == MOST_HDUS:
            raise NotFits(f"It has more than {MOST_HDUS} HDUs.")
        cards, data_offset = _header(read, offset, size, number)
        headers_bytes += data_offset - offset
        if headers_bytes > MOST_HEADERS_BYTES:
            raise NotFits(f"Its headers together are longer than {MOST_HEADERS_BYTES} bytes.")
        axes, data_bytes = _layout(cards, number)
        end = data_offset + -(-data_bytes // BLOCK) * BLOCK
        if end > size:
            raise NotFits(f"It is cut off: HDU {number} ends at byte {_said(end)}, the file has {size}.")
        yield Hdu(number, cards, axes, data_offset, data_bytes)
        offset = end
        number += 1


def _said(count: int) -> str:
    return str(count) if count < 10**18 else "10^18 or beyond"


def _header(read: Read, offset: int, size: int, number: int) -> tuple[bytes, int]:
    """The cards up to END, and where the data begin."""
    cards = bytearray()
    begins = b"SIMPLE  =" if number == 0 else b"XTENSION="
    while True:
        block = read(offset + len(cards), BLOCK)
        if not cards and not block.startswith(begins):
            where = (
                "It does not begin as FITS does" if number == 0 else f"What follows at byte {offset} is no extension"
            )
            raise NotFits(f"{where}: {begins.decode().rstrip(' =')} is not its first keyword.")
        if len(block) < BLOCK:
            raise NotFits(f"It is cut off: the header of HDU {number} has no END, the file has {size} bytes.")
        cards += block
        for at in range(len(cards) - BLOCK, len(cards), CARD):
            card = cards[at : at + CARD]
            if card.startswith(b"END") and not card[3:].strip(b" "):
                if cards[at + CARD :].strip(b" "):
                    raise NotFits(f"The header of HDU {number} goes on behind its END.")
                return bytes(cards[: at + CARD]), offset + len(cards)
            if not all(32 <= byte <= 126 for byte in card):
                raise NotFits(f"The header of HDU {number} holds bytes that are no text, in card {at // CARD + 1}.")
        if len(cards) >= MOST_HEADER_BYTES:
            raise NotFits(f"The header of HDU {number} is longer than {MOST_HEADER_BYTES} bytes.")


def _layout(cards: bytes, number: int) -> tuple[tuple[int, ...], int]:
    """The axes and the length of the data (§4.4.1.1 equation 1, §4.4.1.2 equation 2, §6 for random groups)."""
    first = _text(cards, 0)
    if number == 0 and first != b"T":
        raise NotFits("It says itself that it does not conform: SIMPLE is not T.")
    bits = _number(cards, 1, b"BITPIX", number)
    if bits not in _BITPIX:
        raise NotFits(f"BITPIX of HDU {number} is {_said(bits)}, which is no size of a pixel.")
    count = _number(cards, 2, b"NAXIS", number)
    if not 0 <= count <= MOST_AXES:
        raise NotFits(f"NAXIS of HDU {number} is not from 0 to {MOST_AXES}.")
    axes = tuple(_number(cards, 3 + axis, b"NAXIS%d" % (axis + 1), number) for axis in range(count))
    if any(length < 0 for length in axes):
        raise NotFits(f"An axis of HDU {number} has a negative length.")
    if count == 0:
        return axes, 0
    groups = number == 0 and axes[0] == 0 and find(cards, b"GROUPS") == b"T"
    parameters, copies = 0, 1
    if number > 0 or groups:
        at = None if groups else 3 + count
        parameters = _number(cards, at, b"PCOUNT", number)
        copies = _number(cards, None if at is None else at + 1, b"GCOUNT", number)
        if parameters < 0 or copies < 0:
            raise NotFits(f"PCOUNT or GCOUNT of HDU {number} is negative.")
    values = prod(axes[1:] if groups else axes)
    return axes, abs(bits) // 8 * copies * (parameters + values)


def find(cards: bytes, keyword: bytes) -> bytes | None:
    """The text of a keyword's value, wherever it stands; None without it."""
    begin = keyword.ljust(8) + b"="
    for at in range(0, len(cards), CARD):
        if cards.startswith(begin, at):
            return _text(cards, at // CARD)
    return None


def _text(cards: bytes, nth: int) -> bytes:
    match = _VALUE.match(cards[nth * CARD : (nth + 1) * CARD])
    return b"" if match is None else match[1].strip()


def _number(cards: bytes, nth: int | None, keyword: bytes, hdu: int) -> int:
    """The value of a keyword that stands in its place, or (`nth` None) anywhere."""
    if nth is not None and not cards.startswith(keyword.ljust(8) + b"=", nth * CARD):
        raise NotFits(f"Keyword {nth + 1} of HDU {hdu} is not {keyword.decode()}.")
    said = find(cards, keyword) if nth is None else _text(cards, nth)
    if said is None or re.fullmatch(rb"[+-]?[0-9]{1,30}", said) is None:
        raise NotFits(f"{keyword.decode()} of HDU {hdu} is not a whole number.")
    return int(said)
