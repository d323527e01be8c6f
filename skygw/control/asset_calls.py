"""What is asked of a node about its assets: to send one, or to read it where it lies (`asset.upload`, `asset.read`)."""

import json
from uuid import uuid4

from skygw.control.direct_rpc import DirectCall, DirectOrder, DirectRpc
from skygw.ids import RequestId
from skygw.observing.assets import Asset
from skygw.protocol.json_text import Opaque


class AssetCalls:
    """Times in seconds. Everything raises what a direct request does."""

    def __init__(self, rpc: DirectRpc, *, answer_s: float, read_s: float) -> None:
        """`answer_s` is for a node's short answer, `read_s` for the bytes of an asset."""
        self._rpc = rpc
        self._answer_s = answer_s
        self._read_s = read_s

    async def ask_for(self, asset: Asset, *, service: str, traceparent: str | None) -> None:
        """The node says that it will send the bytes, for which an upload is open. Cancelled, it may send them."""
        order = _order("asset.upload", asset, service, self._answer_s, traceparent)
        async with self._rpc.call(order) as answer:
            async for _ in answer:  # what it says beside that it will is nobody's here
                pass

    def read(self, asset: Asset, *, offset: int, length: int, service: str, traceparent: str | None) -> DirectCall:
        """To be entered: these bytes of what was declared, and of nothing else."""
        return self._rpc.call(
            _order("asset.read", asset, service, self._read_s, traceparent, offset=offset, length=length)
        )


def _order(
    operation: str,
    asset: Asset,
    service: str,
    timeout_s: float,
    traceparent: str | None,
    *,
    offset: int | None = None,
    length: int | None = None,
) -> DirectOrder:
    params = {"asset_uid": str(asset.uid)}
    return DirectOrder(
        install_id=asset.install_id,
        operation=operation,
        params=Opaque(json.dumps(params), params),
        timeout_s=timeout_s,
        service=service,
        request_id=RequestId(str(uuid4())),
        offset=offset,
        length=length,
        if_digest=None if length is None else asset.declared.sha256,
        traceparent=traceparent,
    )
