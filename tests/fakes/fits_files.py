"""FITS files made card by card, so that a test can get one wrong in exactly the way it means to."""

from collections.abc import Sequence

BLOCK = 2880


def card(keyword: str, value: object) -> str:
    written = {True: "T", False: "F"}.get(value) if isinstance(value, bool) else value
    text = f"'{written:8}'" if isinstance(written, str) and not isinstance(value, bool) else str(written)
    return f"{keyword:8}= {text:>20}".ljust(80)


def header(*cards: str) -> bytes:
    text = "".join([*cards, "END".ljust(80)])
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def filled(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")


def primary(axes: Sequence[object] = (), *more: str, bitpix: object = 16, simple: object = True) -> bytes:
    """The header of a primary HDU."""
    lengths = [card(f"NAXIS{nth}", length) for nth, length in enumerate(axes, 1)]
    return header(card("SIMPLE", simple), card("BITPIX", bitpix), card("NAXIS", len(axes)), *lengths, *more)


def image(width: int = 4, height: int = 3, *more: str) -> bytes:
    """A whole file with one image of 16-bit numbers."""
    return primary((width, height), *more) + filled(bytes(2 * width * height))


def extension(
    axes: Sequence[int], *more: str, kind: str = "IMAGE", bitpix: int = 8, pcount: int = 0, gcount: int = 1
) -> bytes:
    """The header of an extension."""
    lengths = [card(f"NAXIS{nth}", length) for nth, length in enumerate(axes, 1)]
    begins = [card("XTENSION", kind), card("BITPIX", bitpix), card("NAXIS", len(axes))]
    return header(*begins, *lengths, card("PCOUNT", pcount), card("GCOUNT", gcount), *more)


SKY = (
    card("CTYPE1", "RA---TAN"),
    card("CTYPE2", "DEC--TAN"),
    card("CRPIX1", 2.5),
    card("CRPIX2", 2.0),
    card("CRVAL1", 120.0),
    card("CRVAL2", 30.0),
    card("CDELT1", -0.01),
    card("CDELT2", 0.01),
    card("RADESYS", "ICRS"),
)
"""Cards that put the centre of `image()` at 120°, +30°."""
