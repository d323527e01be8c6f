"""The camera's frames are real sky: the photograph's own pixels, each in its true place."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS

from skygw.sim.coordinates import Equatorial
from skygw.sim.devices.camera import Exposure
from skygw.sim.sky import M13, Sensor, cut, fits_frame, photograph

SENSOR = Sensor(width=128, height=96)


def _exposure(pointing: Equatorial = M13, *, binning: int = 1) -> Exposure:
    return Exposure(
        asset_uid="7e6f1c0a-0000-5000-8000-000000000001",
        pointing=pointing,
        started_at=datetime(2026, 6, 15, 4, 30, 1, 250_000, tzinfo=UTC),
        duration_s=12.5,
        binning=binning,
        filter_name="R",
        instrument="Camera 1",
        telescope="Telescope 1",
        temperature_c=-19.987,
        frame_number=42,
    )


def _read(content: bytes) -> tuple[Any, Any]:
    """The stored pixels and the header of a frame that must hold together."""
    with fits.open(BytesIO(content), checksum=True, do_not_scale_image_data=True) as hdus:
        hdus.verify("exception")
        return hdus[0].data.copy(), hdus[0].header.copy()


def test_a_frame_is_the_slice_of_the_photograph_around_where_the_mount_points() -> None:
    pixels, header = _read(fits_frame(_exposure(), sensor=SENSOR))
    assert pixels.dtype == np.dtype(">i2")
    assert np.array_equal(pixels, photograph().pixels[102:198, 86:214])
    assert "BLANK" not in header


def test_an_offset_of_the_mount_shifts_the_frame_by_its_pixels() -> None:
    north = Equatorial(M13.ra_deg, M13.dec_deg + 20 * 0.00027770002)
    centred, shifted = cut(M13, sensor=SENSOR, binning=1), cut(north, sensor=SENSOR, binning=1)
    assert (shifted.left, shifted.bottom) == (centred.left, centred.bottom + 20)
    assert np.array_equal(shifted.pixels[:-20], centred.pixels[20:])


@pytest.mark.parametrize("binning", [1, 2, 3, 4])
@pytest.mark.parametrize("offset_deg", [(0.0, 0.0), (0.011, -0.007), (-0.03, 0.03)])
def test_every_pixel_keeps_its_place_on_the_sky(binning: int, offset_deg: tuple[float, float]) -> None:
    pointing = Equatorial(M13.ra_deg + offset_deg[0], M13.dec_deg + offset_deg[1])
    _pixels, header = _read(fits_frame(_exposure(pointing, binning=binning), sensor=SENSOR))
    window = cut(pointing, sensor=SENSOR, binning=binning)
    columns, rows = np.meshgrid(np.arange(0, 128 // binning, 7), np.arange(0, 96 // binning, 5))
    of_frame = WCS(header).pixel_to_world_values(columns, rows)
    middle = (binning - 1) / 2
    of_photograph = WCS(photograph().header).pixel_to_world_values(
        window.left + columns * binning + middle, window.bottom + rows * binning + middle
    )
    np.testing.assert_allclose(of_frame, of_photograph, rtol=0, atol=1e-9)


def test_the_middle_of_the_frame_is_where_the_mount_points_to_half_a_pixel() -> None:
    pointing = Equatorial(M13.ra_deg + 0.004, M13.dec_deg - 0.003)
    _pixels, header = _read(fits_frame(_exposure(pointing), sensor=SENSOR))
    x, y = WCS(header).world_to_pixel_values(pointing.ra_deg, pointing.dec_deg)
    assert abs(float(x) - 63.5) <= 0.5
    assert abs(float(y) - 47.5) <= 0.5


def test_binned_pixels_are_sums() -> None:
    pixels, header = _read(fits_frame(_exposure(binning=2), sensor=SENSOR))
    source = photograph().pixels[102:198, 86:214].astype(np.int64)
    expected = source[0::2, 0::2] + source[1::2, 0::2] + source[0::2, 1::2] + source[1::2, 1::2]
    assert np.array_equal(pixels, expected)
    assert (header["XBINNING"], header["YBINNING"], header["BITPIX"]) == (2, 2, 32)


def test_the_header_says_what_was_done() -> None:
    _pixels, header = _read(fits_frame(_exposure(), sensor=SENSOR))
    said = {
        name: header[name]
        for name in (
            "DATE-OBS",
            "TIMESYS",
            "EXPTIME",
            "INSTRUME",
            "TELESCOP",
            "FILTER",
            "XBINNING",
            "CCD-TEMP",
            "FRAMENO",
        )
    }
    assert said == {
        "DATE-OBS": "2026-06-15T04:30:01.250",
        "TIMESYS": "UTC",
        "EXPTIME": 12.5,
        "INSTRUME": "Camera 1",
        "TELESCOP": "Telescope 1",
        "FILTER": "R",
        "XBINNING": 1,
        "CCD-TEMP": -19.99,
        "FRAMENO": 42,
    }


def test_the_checksums_hold_and_notice_a_flipped_bit() -> None:
    content = bytearray(fits_frame(_exposure(), sensor=SENSOR))
    _pixels, header = _read(bytes(content))
    assert {"CHECKSUM", "DATASUM"} <= set(header)
    content[-4000] ^= 1
    with pytest.warns(AstropyUserWarning, match=r"(Checksum|Datasum) verification failed"):
        fits.open(BytesIO(bytes(content)), checksum=True)[0].verify("exception")


def test_the_same_exposure_gives_the_same_bytes() -> None:
    assert fits_frame(_exposure(), sensor=SENSOR) == fits_frame(_exposure(), sensor=SENSOR)


@pytest.mark.parametrize("binning", [1, 2])
def test_pixels_beyond_the_photograph_are_blank(binning: int) -> None:
    at_the_edge = Equatorial(M13.ra_deg, M13.dec_deg + 150 * 0.00027770002)
    pixels, header = _read(fits_frame(_exposure(at_the_edge, binning=binning), sensor=SENSOR))
    blank = pixels == header["BLANK"]
    assert blank[48 // binning :].all()
    assert not blank[: 48 // binning].any()
    assert header["SKYCOVER"] == 0.5


@pytest.mark.parametrize("pointing", [Equatorial(10.0, 20.0), Equatorial(70.4, -36.5), Equatorial(250.4, -80.0)])
def test_another_part_of_the_sky_is_blank_and_still_a_proper_frame(pointing: Equatorial) -> None:
    pixels, header = _read(fits_frame(_exposure(pointing), sensor=SENSOR))
    assert (pixels == header["BLANK"]).all()
    assert header["SKYCOVER"] == 0
    assert "CRVAL1" not in header
