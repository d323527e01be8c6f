"""A frame recorder without disk, thread or sky, for tests that run on the jumping clock."""

from skygw.sim.devices.camera import Exposure, StoredFrame
from skygw.sim.devices.device import DeviceFault


class RememberedFrames:
    """Keeps what was exposed; `full` makes it refuse like a full disk."""

    def __init__(self) -> None:
        self.exposures: list[Exposure] = []
        self.full = False

    async def record(self, exposure: Exposure) -> StoredFrame:
        if self.full:
            raise DeviceFault("The site's disk is full; the frame is lost.")
        self.exposures.append(exposure)
        return StoredFrame(exposure.asset_uid, f"{exposure.asset_uid}.fits", 0, "0" * 64, "image/fits")
