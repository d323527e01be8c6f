"""Who runs what at a simulated site: one installation for each telescope, and one for what they share."""

from dataclasses import dataclass

from skygw.ids import InstallId, InstanceUid
from skygw.protocol.node_frames import NodeType
from skygw.sim.devices.device import Device
from skygw.sim.installation import Site
from skygw.sim.telescope import Telescope


@dataclass(frozen=True)
class Post:
    """The part of a site that one installation runs: one telescope, or what all of them share."""

    install_id: InstallId
    instance_uid: InstanceUid
    telescopes: tuple[Telescope, ...]
    devices: tuple[Device, ...]
    node_type: NodeType


def posts_of(site: Site) -> list[Post]:
    """The installations of a site: the observatory's first, then one for each telescope."""
    drawn = site.blueprint
    roof = (site.enclosure,)
    own, shared = (roof, ()) if drawn.telescope_runs_roof else ((), roof)
    posts = [Post(drawn.install_id, drawn.instance_uid, (), (*shared, site.weather_sensor), NodeType.OBSERVATORY)]
    for telescope, plan in zip(site.telescopes, drawn.telescopes, strict=True):
        devices = (*telescope.devices, *own)
        posts.append(Post(plan.install_id, plan.instance_uid, (telescope,), devices, NodeType.TELESCOPE))
    return posts
