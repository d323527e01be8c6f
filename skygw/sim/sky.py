"""The sky the simulated cameras see: a real photograph of the globular cluster M13 with its coordinates.

astropy ships the frame (Digitized Sky Survey by way of SkyView, 300 × 300 pixels of one arc second, TAN
projection) among its test data. astropy and numpy are imported on first use only: most simulated nodes
never take a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import as_file, files
from io import BytesIO
from math import isfinite
from typing import TYPE_CHECKING, Any

from skygw.sim.coordinates import Equatorial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from skygw.sim.devices.camera import Exposure

M13 = Equatorial(ra_deg=250.4226, dec_deg=36.4602)
"""The middle of the photograph: what a mount points at to see stars."""

_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_IN_ASTROPY = "io/fits/hdu/compressed/tests/data/m13.fits"


@dataclass(frozen=True)
class Sensor:
    """The size of a chip in unbinned pixels; one covers one arc second, as in the photograph."""

    width: int = 256
    height: int = 256


@dataclass(frozen=True)
class Photograph:
    """The source image: read-only pixels as stored, and the header cards that place them on the sky."""

    pixels: NDArray[np.int16]
    header: Any


@dataclass(frozen=True)
class Cut:
    """A window of the photograph. `left` and `bottom` are its 0-based corner there, possibly outside."""

    pixels: NDArray[Any]
    left: int
    bottom: int
    covered: float
    """The part, 0..1, of the pixels that show sky; the rest are blank."""


@cache
def photograph() -> Photograph:
    """Read the source image once. Raises `FileNotFoundError` if this astropy came without its test data."""
    from astropy.io import fits

    with as_file(files("astropy").joinpath(_IN_ASTROPY)) as path, fits.open(path, memmap=False) as hdus:
        pixels = hdus[0].data.astype("int16")
        pixels.setflags(write=False)
        return Photograph(pixels, hdus[0].header.copy())


def blank_of(pixels: NDArray[Any]) -> int:
    """The value that marks pixels without sky: the lowest that the type holds."""
    import numpy as np

    return int(np.iinfo(pixels.dtype).min)


def cut(pointing: Equatorial, *, sensor: Sensor, binning: int) -> Cut:
    """The window that a chip centred on `pointing` sees, to the nearest pixel of the photograph.

    Unbinned pixels are the photograph's own; binned ones are sums (int32). A binned pixel that is not
    wholly on the photograph is blank.
    """
    import numpy as np
    from astropy.wcs import WCS

    source = photograph()
    width, height = sensor.width // binning, sensor.height // binning
    x, y = (float(axis) for axis in WCS(source.header).world_to_pixel_values(pointing.ra_deg, pointing.dec_deg))
    seen: NDArray[Any] = np.full((height * binning, width * binning), blank_of(source.pixels), dtype=np.int16)
    on_sky: NDArray[np.bool_] = np.zeros(seen.shape, dtype=bool)
    left = bottom = 0
    if isfinite(x) and isfinite(y):
        left, bottom = round(x - (width * binning - 1) / 2), round(y - (height * binning - 1) / 2)
        source_height, source_width = source.pixels.shape
        x0, x1 = max(0, left), min(source_width, left + seen.shape[1])
        y0, y1 = max(0, bottom), min(source_height, bottom + seen.shape[0])
        if x0 < x1 and y0 < y1:
            window = (slice(y0 - bottom, y1 - bottom), slice(x0 - left, x1 - left))
            seen[window] = source.pixels[y0:y1, x0:x1]
            on_sky[window] = True
    if binning > 1:
        blocks = (height, binning, width, binning)
        seen = seen.reshape(blocks).sum(axis=(1, 3), dtype=np.int32)
        on_sky = np.all(on_sky.reshape(blocks), axis=(1, 3))
        seen[~on_sky] = blank_of(seen)
    return Cut(seen, left, bottom, float(on_sky.mean()))


def fits_frame(exposure: Exposure, *, sensor: Sensor) -> bytes:
    """An exposure as a FITS file with its WCS and checksums; the same exposure gives the same bytes.

    Slow (milliseconds, the first time half a second): call it in a thread. A direction from which the
    photograph cannot be projected at all gives a frame that is blank throughout and has no WCS.
    """
    from astropy.io import fits

    window = cut(exposure.pointing, sensor=sensor, binning=exposure.binning)
    hdu = fits.PrimaryHDU(window.pixels)
    header = hdu.header
    milliseconds = round((exposure.started_at - _MJD_ZERO) / timedelta(milliseconds=1))
    taken_at = (_MJD_ZERO + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    header["DATE-OBS"] = (taken_at, "shutter opened, clock of the site")
    header["MJD-OBS"] = (milliseconds / 86_400_000, "[d] the same")
    header["TIMESYS"] = "UTC"
    header["EXPTIME"] = (exposure.duration_s, "[s]")
    header["IMAGETYP"] = "LIGHT"
    header["INSTRUME"] = exposure.instrument
    header["TELESCOP"] = exposure.telescope
    if exposure.filter_name is not None:
        header["FILTER"] = exposure.filter_name
    header["XBINNING"] = exposure.binning
    header["YBINNING"] = exposure.binning
    header["CCD-TEMP"] = (round(exposure.temperature_c, 2), "[Celsius]")
    header["RA"] = (exposure.pointing.ra_deg, "[deg] where the mount pointed")
    header["DEC"] = (exposure.pointing.dec_deg, "[deg] where the mount pointed")
    header["FRAMENO"] = exposure.frame_number
    header["SKYCOVER"] = (window.covered, "part of the pixels that show sky")
    if window.covered < 1:
        header["BLANK"] = (blank_of(window.pixels), "no sky known here")
    if window.covered > 0:
        _place_on_sky(header, window, exposure.binning)
    header["HISTORY"] = "Simulated exposure; the pixels are the DSS photograph of M13 from SkyView."
    hdu.add_checksum(when=taken_at)
    written = BytesIO()
    hdu.writeto(written, output_verify="exception")
    return written.getvalue()


def _place_on_sky(header: Any, window: Cut, binning: int) -> None:
    """Shift and scale the photograph's WCS so that every pixel keeps its place on the sky."""
    source = photograph().header
    for axis, corner in ((1, window.left), (2, window.bottom)):
        header[f"CTYPE{axis}"] = source[f"CTYPE{axis}"]
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRVAL{axis}"] = source[f"CRVAL{axis}"]
        header[f"CRPIX{axis}"] = (source[f"CRPIX{axis}"] - corner - 0.5) / binning + 0.5
        header[f"CDELT{axis}"] = source[f"CDELT{axis}"] * binning
    header["RADESYS"] = ("FK5", "what EQUINOX 2000 alone means")
    header["EQUINOX"] = source["EQUINOX"]
