"""What outlives a gateway's process: one database in memory for one gateway after the other, with its backups."""

from dataclasses import dataclass
from uuid import UUID

from skygw.control.lease import Lease
from skygw.control.ledger import CommandRecord
from skygw.ids import CommandId, InstallId, LeaseId, OutboxUid
from skygw.nodes.ports import DurableReport
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.ports import MemoryCommands, MemoryControllers, MemoryEpochs, MemoryReports, Switch, copied


@dataclass(frozen=True)
class Backup:
    """All tables at one moment."""

    epochs: dict[InstallId, int]
    fences: dict[UUID, int]
    commands: dict[CommandId, CommandRecord]
    leases: dict[LeaseId, Lease]
    reports: dict[OutboxUid, list[DurableReport]]


class MemoryDatabase:
    """The leases stand on a switch of their own: tests count how long the other takes."""

    def __init__(self) -> None:
        self.switch, self.lease_switch = Switch(), Switch()
        self.epochs = MemoryEpochs(self.switch)
        self.commands = MemoryCommands(self.switch)
        self.reports = MemoryReports(self.switch, self.commands)
        self.controllers = MemoryControllers(self.switch)
        self.leases = MemoryLeases(self.lease_switch, self.epochs.fences)

    def back_up(self) -> Backup:
        return Backup(
            epochs=dict(self.epochs.epochs),
            fences=dict(self.epochs.fences),
            commands={command_id: copied(row) for command_id, row in self.commands.rows.items()},
            leases=dict(self.leases.rows),
            reports={outbox_uid: list(rows) for outbox_uid, rows in self.reports.rows.items()},
        )

    def restore(self, backup: Backup) -> None:
        """As it was then; the backup may be restored again."""
        self.epochs.epochs = dict(backup.epochs)
        self.epochs.fences.clear()  # the leases stand on the same ones
        self.epochs.fences.update(backup.fences)
        self.leases.rows = dict(backup.leases)
        self.commands.rows = {command_id: copied(row) for command_id, row in backup.commands.items()}
        self.reports.rows = {outbox_uid: list(rows) for outbox_uid, rows in backup.reports.items()}
