"""The ids that travel through every room, each as its own type so that one is never taken for another."""

from typing import NewType
from uuid import UUID

InstallId = NewType("InstallId", UUID)
"""A SkyNode installation (`node.install_id`): stable, the uid of the hub's `SkyNodeInstallation` record."""

InstanceUid = NewType("InstanceUid", UUID)
"""The machine an installation runs on; a cloned disk has another one."""

SessionUid = NewType("SessionUid", UUID)
"""One life of one node socket, from a valid `hello` to its close."""

RegistryUid = NewType("RegistryUid", UUID)
"""The ledger of epochs, made once per database; changes when a database is made anew."""

OutboxUid = NewType("OutboxUid", UUID)
"""A node's durable outbox; `seq` counts inside it and survives restarts."""

BootId = NewType("BootId", UUID)
"""One run of the node's program; `live_seq` counts inside it."""

TelescopeUid = NewType("TelescopeUid", UUID)
DeviceUid = NewType("DeviceUid", UUID)

LeaseId = NewType("LeaseId", UUID)
"""Names a lease to everybody."""

LeaseUid = NewType("LeaseUid", UUID)
"""The secret of a lease: known to its holder alone, kept as a digest."""

TaskUid = NewType("TaskUid", UUID)
"""An observation task of the hub's."""

AssetUid = NewType("AssetUid", UUID)
"""An observation asset of the hub's: a file, whether its bytes are here or not."""

UploadUid = NewType("UploadUid", UUID)
"""One upload, from its creation until it is verified, given up or expired; it names the bytes while they come."""

CommandId = NewType("CommandId", UUID)
"""Chosen by whoever sends the command; one id is one action, for ever."""

CallId = NewType("CallId", UUID)
"""The gateway's own id of one direct request on one socket; the first 16 bytes of every binary chunk."""

RequestId = NewType("RequestId", str)
"""The caller's correlation of a request: up to 128 printable ASCII characters."""

Epoch = NewType("Epoch", int)
"""Grows at every claim of an installation's socket; a node refuses acting frames that carry a lower one."""
