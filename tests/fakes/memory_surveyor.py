"""`Surveyor` in memory."""

from uuid import UUID

from skygw.control.allow_list import Surroundings
from skygw.database.provision import NewObservatory
from skygw.nodes.ports import Binding
from skygw.resources import ResourceKind
from tests.fakes.ports import Switch


class MemorySurveyor:
    """`asked` counts questions."""

    def __init__(self, switch: Switch) -> None:
        self.asked = 0
        self._known: dict[tuple[ResourceKind, UUID], Surroundings] = {}
        self._switch = switch

    def know(self, binding: Binding) -> None:
        """The installation of a telescope, with its telescope and devices."""
        around = Surroundings(binding.observatory_uid, frozenset(binding.telescopes))
        self._known[ResourceKind.INSTALLATION, binding.install_id] = around
        self._known |= {(resource.kind, uid): around for uid, resource in binding.resources.items()}

    def survey(self, records: NewObservatory) -> None:
        """Everything in these records."""
        shared = Surroundings(records.uid, frozenset(telescope.uid for telescope in records.telescopes))
        for device in records.devices:
            self._known[ResourceKind.DEVICE, device.uid] = shared
        if records.install_id is not None:
            self._known[ResourceKind.INSTALLATION, records.install_id] = shared
        for telescope in records.telescopes:
            around = Surroundings(records.uid, frozenset({telescope.uid}))
            self._known[ResourceKind.TELESCOPE, telescope.uid] = around
            for device in telescope.devices:
                self._known[ResourceKind.DEVICE, device.uid] = around
            if telescope.install_id is not None:
                self._known[ResourceKind.INSTALLATION, telescope.install_id] = around

    async def around(self, kind: ResourceKind, uid: UUID) -> Surroundings | None:
        self.asked += 1
        await self._switch.asked()
        return self._known.get((kind, uid))
