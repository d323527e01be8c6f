"""What the hub knows of a telescope that observes: its records, written by the database's owner."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg

from skygw.database.provision import NewInstrument, NewObservatory, NewTelescope, provision
from skygw.ids import InstallId, TaskUid, TelescopeUid

INSERT_OBSERVATION = "INSERT INTO observation (uid) VALUES (%s)"
INSERT_TASK = """
    INSERT INTO observation_task (uid, task_type, status, observation_id, instrument_id)
    SELECT %s, 'optical_imaging', 'pending', observation.id, instrument.id
    FROM observation, instrument
    WHERE observation.uid = %s AND instrument.uid = %s
"""


@dataclass(frozen=True)
class ObservingSite:
    """A telescope with an instrument, the installation that runs it, and a task of an observation."""

    install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))
    telescope_uid: TelescopeUid = field(default_factory=lambda: TelescopeUid(uuid4()))
    instrument_uid: UUID = field(default_factory=uuid4)
    observation_uid: UUID = field(default_factory=uuid4)
    task_uid: TaskUid = field(default_factory=lambda: TaskUid(uuid4()))

    @property
    def telescopes(self) -> list[TelescopeUid]:
        return [self.telescope_uid]

    async def provision(self, owner_url: str) -> "ObservingSite":
        imager = NewInstrument(self.instrument_uid, "optical_imager", "Imager")
        dome = NewTelescope(self.telescope_uid, "Dome", instruments=(imager,), install_id=self.install_id)
        await provision(owner_url, [NewObservatory(uuid4(), "Ridge", telescopes=(dome,))])
        with psycopg.connect(owner_url) as connection:
            connection.execute(INSERT_OBSERVATION, [self.observation_uid])
        self.add_task(owner_url, self.task_uid)
        return self

    def add_task(self, owner_url: str, task_uid: UUID) -> None:
        with psycopg.connect(owner_url) as connection:
            connection.execute(INSERT_TASK, [task_uid, self.observation_uid, self.instrument_uid])
