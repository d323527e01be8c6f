"""The terms of a lease as a caller says them, by HTTP or in a published command: validated once, for both."""

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from skygw.control.lease import LONGEST_S, SHORTEST_S, Terms, WhileTask
from skygw.protocol.gateway_frames import OnExpiry

DEFAULT_S = 300.0
DEFAULT_WARN_S = 60.0

Duration = Annotated[float, Field(ge=SHORTEST_S, le=LONGEST_S, allow_inf_nan=False)]
Warn = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]


class AskedTerms(BaseModel):
    """Of a lease that is asked for. Seconds."""

    duration_s: Duration = DEFAULT_S
    warn_s: Annotated[Warn | None, Field(description="60, or half of the duration where that is less.")] = None
    on_expiry: OnExpiry = OnExpiry.SAFE_SHUTDOWN
    deadman_s: Duration | None = None
    while_task: Annotated[
        WhileTask,
        Field(
            description="If a task runs: no lease, or a lease under which nothing is moved until the task has ended by "
            "itself (`finish`) or is aborted (`interrupt`)."
        ),
    ] = WhileTask.REFUSE

    @model_validator(mode="after")
    def _holds_together(self) -> "AskedTerms":
        if self.warn_s is not None and self.warn_s > self.duration_s:
            raise ValueError("the warning must not come before the lease begins")
        return self

    @property
    def terms(self) -> Terms:
        warn_s = min(DEFAULT_WARN_S, self.duration_s / 2) if self.warn_s is None else self.warn_s
        return Terms(self.duration_s, warn_s, self.on_expiry, self.deadman_s)


class RenewedTerms(BaseModel):
    """Of a lease that is kept: the duration counts from now; without it the lease lasts as long as it did at first."""

    duration_s: Duration | None = None

    def terms(self, now: Terms) -> Terms | None:
        """Other terms than those it has, if others are asked for."""
        if self.duration_s is None:
            return None
        return Terms(self.duration_s, min(now.warn_s, self.duration_s), now.on_expiry, now.deadman_s)
