"""The token of one node socket: renewed in band, ended at `exp`, kept in grace while its issuer is away."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import time

import trio

from skygw.errors import GatewayError, RoutingUnavailable
from skygw.ids import InstallId
from skygw.nodes.heartbeat import Ends
from skygw.nodes.ports import TokenRenewer
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import EventToken, Goaway, TokenState
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import Error, ErrorCode

log = logging.getLogger("skygw.nodes")

RECHECK_TOKEN_S = 2.5
"""How often an issuer is asked again about a token only it can vouch for; with its own cache well under 5 s."""

STAY_AWAY_MS = 5 * 60_000
"""What a revoked node is asked to wait."""


class SessionToken:
    """`offer` never waits; `watch` and `recheck` run in the session's nursery. `expires_at`: seconds of the epoch."""

    def __init__(
        self,
        *,
        install_id: InstallId,
        expires_at: float,
        to_recheck: str | None,
        tokens: TokenRenewer,
        grace_s: float,
        say: Callable[[Frame], None],
        end: Ends,
    ) -> None:
        self.expires_at = expires_at
        self.in_grace = False
        self._install_id = install_id
        self._to_recheck = to_recheck
        self._tokens = tokens
        self._grace_s = grace_s
        self._say = say
        self._end = end
        self._newer, self._offered = trio.open_memory_channel[str](1)

    def offer(self, token: str) -> None:
        """A newer token from the node; one is checked at a time."""
        try:
            self._newer.send_nowait(token)
        except trio.WouldBlock:
            self._say(Error(code=ErrorCode.CONFLICT, message="A token is being checked already; wait for the answer."))

    async def watch(self) -> None:
        """Takes newer tokens; ends the session at `exp`, or after a grace time while the issuer cannot be reached."""
        while True:
            grace_s = self._grace_s if self.in_grace else 0.0
            with trio.move_on_after(max(0.0, self.expires_at + grace_s - time())):
                token = await self._offered.receive()
                await self._renew(token)
                continue
            if self.in_grace or await self._tokens.issuer_reachable():
                self._end(CloseCode.TOKEN_EXPIRED, "the token has expired; come back with a newer one")
                return
            self.in_grace = True
            self._tell(TokenState.GRACE, self.expires_at + self._grace_s)
            log.warning("token expired, issuer away: telemetry and safing only")

    async def recheck(self) -> None:
        """Asks the issuer again and again about a token that only it can vouch for; ends the session when it no longer
        does. While nobody can say, the session stays; beyond its `exp` the token is the business of `watch`.
        """
        while (token := self._to_recheck) is not None:
            await trio.sleep(RECHECK_TOKEN_S)
            try:
                await self._tokens.renew(self._install_id, token)
            except RoutingUnavailable:
                continue
            except GatewayError as error:
                if token != self._to_recheck or time() >= self.expires_at:
                    continue  # a newer one was taken meanwhile, or its time is over anyway
                log.warning("token revoked", extra={"install_id": str(self._install_id)})
                goodbye = f"revoked: {error.message} Follow your link-loss policy."
                self._say(Goaway(reason=goodbye, reconnect_after_ms=STAY_AWAY_MS))
                self._end(CloseCode.REVOKED, f"revoked: {error.message}")
                return
        await trio.sleep_forever()

    async def _renew(self, token: str) -> None:
        try:
            expires_at = await self._tokens.renew(self._install_id, token)
        except RoutingUnavailable as error:
            self._say(_refusal(error, ErrorCode.INTERNAL))
        except GatewayError as error:
            self._say(_refusal(error, ErrorCode.FORBIDDEN))
        else:
            # An older token in a replayed message does not shorten the session.
            self.expires_at = max(self.expires_at, expires_at)
            self.in_grace = False
            if self._to_recheck is not None:
                self._to_recheck = token
            self._tell(TokenState.RENEWED, self.expires_at)

    def _tell(self, state: TokenState, expires_at: float) -> None:
        self._say(EventToken(state=state, expires_at=datetime.fromtimestamp(expires_at, UTC)))


def _refusal(error: GatewayError, code: ErrorCode) -> Error:
    return Error(
        code=code,
        message=error.message,
        details=Opaque.of({"reason": error.reason, "outcome": error.outcome, "retry": error.retry}),
    )
