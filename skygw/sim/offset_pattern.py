"""The patterns a tracking mount steps through around its target: rows of a raster, petals of a daisy."""

from math import cos, pi, sin
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class RasterPattern(BaseModel):
    """Rows of points centred on the target, every other row walked backwards; arc seconds on the sky."""

    pattern_type: Literal["raster"]
    rows: int = Field(ge=1, le=100)
    columns: int = Field(ge=1, le=100)
    step_arcsec: float = Field(gt=0, le=36_000)
    dwell_s: float = Field(default=1.0, ge=0, le=3600)

    def offsets_arcsec(self) -> list[tuple[float, float]]:
        """(east, north) of every point in the order of the walk."""
        points = []
        for row in range(self.rows):
            columns = range(self.columns) if row % 2 == 0 else reversed(range(self.columns))
            north = (row - (self.rows - 1) / 2) * self.step_arcsec
            points += [((column - (self.columns - 1) / 2) * self.step_arcsec, north) for column in columns]
        return points


class DaisyPattern(BaseModel):
    """A rose curve through the target: loops of `radius_arcsec`, each of `points_per_petal` points."""

    pattern_type: Literal["daisy"]
    petals: int = Field(ge=1, le=100)
    radius_arcsec: float = Field(gt=0, le=36_000)
    points_per_petal: int = Field(default=8, ge=2, le=100)
    dwell_s: float = Field(default=1.0, ge=0, le=3600)

    def offsets_arcsec(self) -> list[tuple[float, float]]:
        """(east, north) of every point in the order of the walk; each petal begins at the centre."""
        points = []
        for petal in range(self.petals):
            middle = 2 * pi * petal / self.petals
            for step in range(self.points_per_petal):
                phase = step / self.points_per_petal
                radius = self.radius_arcsec * sin(pi * phase)
                angle = middle + (phase - 0.5) * pi / self.petals
                points.append((radius * sin(angle), radius * cos(angle)))
        return points


OffsetPattern = Annotated[RasterPattern | DaisyPattern, Field(discriminator="pattern_type")]
