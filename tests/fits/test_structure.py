"""What is a whole FITS file and what is not, said before any of its data are read."""

from pathlib import Path

import astropy.io.fits
import pytest

from skygw.fits.finding import NotFits
from skygw.fits.structure import MOST_HEADER_BYTES, Hdu, walk
from tests.fakes.fits_files import card, extension, filled, header, image, primary

TABLE = extension((8, 3), kind="BINTABLE", pcount=5) + filled(bytes(8 * 3 + 5))
SAMPLES = Path(astropy.io.fits.__file__).parent / "tests" / "data"


def hdus(content: bytes, *, size: int | None = None) -> list[Hdu]:
    return list(walk(lambda offset, length: content[offset : offset + length], len(content) if size is None else size))


@pytest.mark.parametrize(
    ("content", "axes"),
    [
        (primary(), [()]),
        (image(), [(4, 3)]),
        (primary((4, 0)), [(4, 0)]),
        (primary() + TABLE, [(), (8, 3)]),
        (image() + TABLE + extension((2, 2)) + filled(bytes(4)), [(4, 3), (8, 3), (2, 2)]),
        (
            primary((0, 4), card("GROUPS", True), card("PCOUNT", 2), card("GCOUNT", 3))
            + filled(bytes(2 * 3 * (2 + 4))),
            [(0, 4)],
        ),
    ],
)
def test_a_whole_file_is_walked_to_its_end(content: bytes, axes: list[tuple[int, ...]]) -> None:
    assert [hdu.axes for hdu in hdus(content)] == axes


def test_real_files_of_many_makers_are_whole() -> None:
    for name in ("test0.fits", "comp.fits", "random_groups.fits", "tb.fits", "variable_length_table.fits"):
        content = (SAMPLES / name).read_bytes()
        with astropy.io.fits.open(SAMPLES / name) as opened:
            assert len(hdus(content)) == len(opened), name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin as FITS does"),
        (b"\x1f\x8b" + bytes(5000), "does not begin as FITS does"),
        (b"SIMPLE  =                    T", "cut off: the header of HDU 0 has no END"),
        (image()[:-1], "cut off: HDU 0 ends at byte 5760, the file has 5759"),
        (image()[:2880], "cut off: HDU 0 ends at byte 5760"),
        ((image() + TABLE)[:-2880], "cut off: HDU 1"),
        (image() + bytes(2880), "What follows at byte 5760 is no extension"),
        (image() + b"XTENSION=", "cut off: the header of HDU 1 has no END"),
        (primary(simple=False), "SIMPLE is not T"),
        (primary(bitpix=24), "BITPIX of HDU 0 is 24"),
        (primary(bitpix="x"), "BITPIX of HDU 0 is not a whole number"),
        (primary((4, -1)), "negative length"),
        (primary((4, "many")), "NAXIS2 of HDU 0 is not a whole number"),
        (header(card("SIMPLE", True), card("NAXIS", 0), card("BITPIX", 8)), "Keyword 2 of HDU 0 is not BITPIX"),
        (header(card("SIMPLE", True), card("BITPIX", 8), card("NAXIS", 1000)), "NAXIS of HDU 0 is not from 0 to 999"),
        (header(card("SIMPLE", True), card("BITPIX", 8), card("NAXIS", 2), card("NAXIS2", 1)), "is not NAXIS1"),
        (primary((10**15,)), "cut off: HDU 0 ends at byte 20000000000"),
        (primary((2**62,) * 900), "cut off: HDU 0 ends at byte 10^18 or beyond"),
        (primary((10**31,)), "NAXIS1 of HDU 0 is not a whole number"),
        (primary() + extension((1,), pcount=-1), "PCOUNT or GCOUNT of HDU 1 is negative"),
        (primary() + extension((1,), gcount=10**15), "cut off: HDU 1"),
        (primary((1,), "COMMENT \x00".ljust(80)), "holds bytes that are no text, in card 5"),
        (primary().rstrip().ljust(2879) + b"X", "goes on behind its END"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, says: str) -> None:
    with pytest.raises(NotFits, match=says.replace("^", r"\^")):
        hdus(content)


def test_a_header_of_megabytes_is_not_read_to_its_end() -> None:
    read: list[int] = []
    content = primary()[:160] + b"COMMENT".ljust(80) * (5 * MOST_HEADER_BYTES // 80)

    def counting(offset: int, length: int) -> bytes:
        read.append(length)
        return content[offset : offset + length]

    with pytest.raises(NotFits, match="longer than 2096640 bytes"):
        list(walk(counting, len(content)))
    assert sum(read) == MOST_HEADER_BYTES


def test_headers_without_number_are_not_walked() -> None:
    with pytest.raises(NotFits, match="more than 4096 HDUs"):
        hdus(primary() + extension(()) * 4100)
