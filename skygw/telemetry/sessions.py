"""What telemetry asks of an installation's session: who it is, when it was heard, why it ended."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from skygw.ids import Epoch, InstallId, TelescopeUid
from skygw.resources import Resource


class Bound(Protocol):
    """An installation by the hub's records."""

    @property
    def install_id(self) -> InstallId: ...
    @property
    def name(self) -> str: ...
    @property
    def observatory_uid(self) -> UUID: ...
    @property
    def telescopes(self) -> Collection[TelescopeUid]: ...
    @property
    def resources(self) -> Mapping[UUID, Resource]: ...


class Greeting(Protocol):
    """What a node says of itself."""

    @property
    def software_version(self) -> str: ...


class Session(Protocol):
    """One socket of an installation. `last_received_at` is on trio's clock."""

    @property
    def binding(self) -> Bound: ...
    @property
    def hello(self) -> Greeting: ...
    @property
    def epoch(self) -> Epoch: ...
    @property
    def address(self) -> str: ...
    @property
    def last_received_at(self) -> float: ...


class Goodbye(Protocol):
    """Why a session ended."""

    @property
    def code(self) -> int | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def by_node(self) -> bool: ...
    @property
    def at(self) -> datetime: ...
