"""What the hub would know of a simulated site agrees with who runs what there."""

import pytest

from skygw.demo.records import records_of
from skygw.sim.blueprint import Layout, draw_site


@pytest.mark.parametrize(
    ("layout", "telescopes", "owner"),
    [
        (Layout.WIRED, 1, "observatory"),
        (Layout.REMOTE_WEATHER, 1, "telescope"),
        (Layout.REMOTE_WEATHER, 2, "observatory"),
    ],
)
def test_the_roof_is_the_telescopes_own_only_where_its_node_runs_it(
    layout: Layout, telescopes: int, owner: str
) -> None:
    site = draw_site("records", 1, telescopes=telescopes, layout=layout)
    records = records_of(site)
    owners = ["observatory" for device in records.devices if device.uid == site.enclosure_uid]
    for telescope in records.telescopes:
        owners += ["telescope" for device in telescope.devices if device.uid == site.enclosure_uid]

    assert owners == [owner]
    assert site.weather_sensor_uid in {device.uid for device in records.devices}
