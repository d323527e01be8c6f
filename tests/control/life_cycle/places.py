"""The observatory of the model: a telescope with its node, another whose node is never there, and a roof they share."""

from uuid import UUID

from skygw.control.lease import Place
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from skygw.nodes.ports import Binding
from skygw.protocol.node_frames import NodeType
from skygw.resources import Resource, ResourceKind

OBSERVATORY = UUID(int=1)
TELESCOPE, OTHER_TELESCOPE = TelescopeUid(UUID(int=2)), TelescopeUid(UUID(int=3))
MOUNT, CAMERA, ROOF = DeviceUid(UUID(int=4)), DeviceUid(UUID(int=5)), DeviceUid(UUID(int=6))
TELESCOPE_NODE, ROOF_NODE, OTHER_NODE = InstallId(UUID(int=7)), InstallId(UUID(int=8)), InstallId(UUID(int=9))

NAMES = {TELESCOPE_NODE: "telescope", ROOF_NODE: "roof"}
DEVICES = {TELESCOPE_NODE: (MOUNT, CAMERA), ROOF_NODE: (ROOF,)}
NODE_OF: dict[UUID, InstallId] = {MOUNT: TELESCOPE_NODE, CAMERA: TELESCOPE_NODE, ROOF: ROOF_NODE}


def _resource(uid: UUID, install_id: InstallId, telescope_uid: UUID | None, device_type: str | None = None) -> Resource:
    kind = ResourceKind.TELESCOPE if device_type is None else ResourceKind.DEVICE
    return Resource(uid, kind, install_id, OBSERVATORY, telescope_uid, device_type)


PLACES = (
    Place(_resource(TELESCOPE, TELESCOPE_NODE, TELESCOPE), (ROOF,)),
    Place(_resource(OTHER_TELESCOPE, OTHER_NODE, OTHER_TELESCOPE), (ROOF,)),
    Place(_resource(MOUNT, TELESCOPE_NODE, TELESCOPE, "mount"), ()),
    Place(_resource(CAMERA, TELESCOPE_NODE, TELESCOPE, "camera"), ()),
    Place(_resource(ROOF, ROOF_NODE, None, "enclosure"), (TELESCOPE, OTHER_TELESCOPE)),
)

CONTROLLERS: dict[UUID, InstallId] = {place.resource.uid: place.resource.install_id for place in PLACES}


def _binding(install_id: InstallId, node_type: NodeType) -> Binding:
    mine = [place.resource for place in PLACES if place.resource.install_id == install_id]
    return Binding(
        install_id=install_id,
        name=NAMES[install_id],
        node_type=node_type,
        observatory_uid=OBSERVATORY,
        telescopes=frozenset(TelescopeUid(one.uid) for one in mine if one.kind is ResourceKind.TELESCOPE),
        devices=frozenset(DeviceUid(one.uid) for one in mine if one.kind is ResourceKind.DEVICE),
        resources={one.uid: one for one in mine},
    )


BINDINGS = {
    TELESCOPE_NODE: _binding(TELESCOPE_NODE, NodeType.TELESCOPE),
    ROOF_NODE: _binding(ROOF_NODE, NodeType.OBSERVATORY),
}
