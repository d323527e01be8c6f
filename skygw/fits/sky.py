"""Where on the sky an image lies, by what its header says; astropy and wcslib are loaded here, in the helper alone."""

import warnings
from typing import Any

from astropy.io.fits import Header
from astropy.utils import iers
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_skycoord

from skygw.fits.finding import SkyBox
from skygw.fits.structure import Hdu, find

iers.conf.auto_download = False

_STRUCTURE = ("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "TFIELDS", "ZIMAGE")

MOST_WCS_BYTES = 256 * 1024
"""A header that is longer is not given to wcslib: its keywords would be among thousands of others."""


def box_of(hdu: Hdu) -> SkyBox | None:
    """None where the HDU is no image, or what it says of the sky is nothing that can be understood."""
    if len(hdu.cards) > MOST_WCS_BYTES or b"CTYPE1" not in hdu.cards:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _box(hdu)
        except Exception:  # noqa: BLE001 -- wcslib and astropy raise whatever they like, and the frame is a frame without it
            return None


def _box(hdu: Hdu) -> SkyBox | None:
    header = Header.fromstring(hdu.cards.decode("ascii"))
    packed = find(hdu.cards, b"ZIMAGE") == b"T"
    if hdu.number > 0 and not packed and not str(header["XTENSION"]).startswith("IMAGE"):
        return None
    axes = tuple(int(header[f"ZNAXIS{axis + 1}"]) for axis in range(header["ZNAXIS"])) if packed else hdu.axes
    if len(axes) < 2 or min(axes) < 1:
        return None
    for card in [*header]:
        if card in _STRUCTURE or card.startswith(("NAXIS", "ZNAXIS", "TTYPE", "TFORM")):
            header.remove(card, ignore_missing=True, remove_all=True)
    wcs: Any = WCS(header)
    if not wcs.has_celestial:
        return None
    celestial = wcs.celestial
    # A cube may have its spectrum first.
    width, height = (axes[axis] for axis in sorted((wcs.wcs.lng, wcs.wcs.lat)))
    # The first pixel's centre is (0, 0) here.
    right, top = width - 0.5, height - 0.5
    across = [-0.5, right, right, -0.5, (width - 1) / 2]
    up = [-0.5, -0.5, top, top, (height - 1) / 2]
    seen = pixel_to_skycoord(across, up, celestial, origin=0).icrs
    points = [(float(ra), float(dec)) for ra, dec in zip(seen.ra.deg, seen.dec.deg, strict=True)]
    if any(ra != ra or dec != dec for ra, dec in points):  # NaN: off the edge of an all-sky projection
        return None
    return SkyBox(points[4], tuple(points[:4]))


def warm_up() -> None:
    """Makes everything be loaded that is loaded late: afterwards no file can be opened any more."""
    for first, second, system in (
        ("RA---TAN", "DEC--TAN", "FK5"),
        ("RA---TAN-SIP", "DEC--TAN-SIP", "ICRS"),
        ("RA---SIN", "DEC--SIN", "FK4"),
        ("GLON-CAR", "GLAT-CAR", ""),
        ("ELON-ZEA", "ELAT-ZEA", ""),
    ):
        header = Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 2, "NAXIS1": 10, "NAXIS2": 10})
        header.update({"CTYPE1": first, "CTYPE2": second, "CRPIX1": 5.0, "CRPIX2": 5.0, "CRVAL1": 10.0, "CRVAL2": 10.0})
        header.update({"CDELT1": -0.001, "CDELT2": 0.001})
        if system:
            header["RADESYS"] = system
        box_of(Hdu(0, header.tostring(padding=False).encode("ascii"), (10, 10), 0, 100))
