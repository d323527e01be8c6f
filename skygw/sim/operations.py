"""The direct operations of a simulated node: what a hub may read from it, by uid and never by path."""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from uuid import UUID

import trio

from skygw.client.node import DirectCall, NodeClient, OperationRefused
from skygw.ids import DeviceUid
from skygw.sim.devices.camera import StoredFrame
from skygw.sim.devices.device import DeviceFault
from skygw.sim.faults import NodeFaults
from skygw.sim.frame_store import FrameNotFound, FrameStore
from skygw.sim.installation import Site
from skygw.sim.preview import preview_png

PIECE_BYTES = 256 * 1024
"""What is read from the disk at a time."""

LOG_LINES = 200
"""Lines that `log.tail` can look back."""


class NodeOperations:
    """Answers for the devices given; the frames are those of the whole site."""

    def __init__(self, site: Site, frames: FrameStore, *, devices: Collection[DeviceUid], faults: NodeFaults) -> None:
        self._site = site
        self._frames = frames
        self._devices = frozenset(devices)
        self._faults = faults
        self.log_lines: deque[str] = deque(maxlen=LOG_LINES)
        self.begun = 0
        """Calls that reached this node."""
        self.abandoned: list[str] = []
        """The operations of the calls that the gateway cancelled while they ran."""

    def register(self, client: NodeClient) -> None:
        """Offer everything there is."""
        for name, effects, handler in (
            ("asset.read", "transfer", self._asset_read),
            ("camera.preview", "none", self._camera_preview),
            ("device.read", "none", self._device_read),
            ("log.tail", "none", self._log_tail),
        ):
            client.operation(name, effects=effects)(self._counted(handler))

    def _counted(self, handler: Callable[[DirectCall], Awaitable[None]]) -> Callable[[DirectCall], Awaitable[None]]:
        async def serve(call: DirectCall) -> None:
            self.begun += 1
            try:
                if self._faults.silent:
                    await trio.sleep_forever()
                await handler(call)
            except trio.Cancelled:
                if call.abandoned:
                    self.abandoned.append(call.operation)
                raise

        return serve

    async def _asset_read(self, call: DirectCall) -> None:
        frame = self._frame(_text(call, "asset_uid"))
        if call.if_digest is not None and call.if_digest != frame.sha256:
            raise OperationRefused(
                "conflict", "The frame is another one than you know.", {"reason": "changed", "sha256": frame.sha256}
            )
        offset = call.offset if call.offset is not None else _count(call, "offset") or 0
        length = call.length if call.length is not None else _count(call, "length")
        if offset > frame.size:
            raise OperationRefused(
                "invalid", f"The frame has {frame.size} bytes; there is nothing at {offset}.", {"reason": "invalid"}
            )
        end = frame.size if length is None else min(frame.size, offset + length)
        await call.start(
            frame.content_type,
            total_size=end - offset,
            metadata={"file_name": frame.file_name, "size": frame.size, "sha256": frame.sha256, "offset": offset},
        )
        while offset < end:
            piece = await trio.to_thread.run_sync(self._read, frame.asset_uid, offset, min(PIECE_BYTES, end - offset))
            await call.send(piece)
            offset += len(piece)

    def _read(self, asset_uid: str, offset: int, length: int) -> bytes:
        """In a thread. A file that is shorter than announced fails the call."""
        try:
            piece = self._frames.read(asset_uid, offset=offset, length=length)
        except FrameNotFound as gone:
            raise OperationRefused("not_found", str(gone), {"reason": "not_found"}) from None
        if not piece:
            raise EOFError(f"The frame {asset_uid} ends before its size.")
        return piece

    async def _camera_preview(self, call: DirectCall) -> None:
        frames = self._frames.frames()
        if not frames:
            raise OperationRefused("not_found", "Nothing has been exposed here yet.", {"reason": "not_found"})
        newest = frames[-1]
        png = await trio.to_thread.run_sync(lambda: preview_png(self._frames.read(newest.asset_uid)))
        await call.start("image/png", total_size=len(png), metadata={"asset_uid": newest.asset_uid})
        await call.send(png)

    async def _device_read(self, call: DirectCall) -> None:
        wanted = _text(call, "device_uid")
        try:
            device = self._site.devices[DeviceUid(UUID(wanted))]
        except (ValueError, KeyError):
            device = None
        if device is None or device.uid not in self._devices:
            raise OperationRefused("not_found", f"There is no device {wanted[:64]} here.", {"reason": "not_found"})
        try:
            said = self._site.snapshot_of(device)
        except DeviceFault as fault:
            raise OperationRefused("internal", str(fault), {"reason": "device_fault"}) from None
        await _answer_json(call, said)

    async def _log_tail(self, call: DirectCall) -> None:
        lines = _count(call, "lines")
        wanted = list(self.log_lines)[-min(LOG_LINES, LOG_LINES if lines is None else lines) :] if lines != 0 else []
        text = "".join(f"{line}\n" for line in wanted).encode()
        await call.start("text/plain; charset=utf-8", total_size=len(text))
        await call.send(text)

    def _frame(self, asset_uid: str) -> StoredFrame:
        try:
            return self._frames.frame(asset_uid)
        except FrameNotFound as missing:
            raise OperationRefused("not_found", str(missing), {"reason": "not_found"}) from None


async def _answer_json(call: DirectCall, value: dict[str, Any]) -> None:
    data = json.dumps(value, allow_nan=False).encode()
    await call.start("application/json", total_size=len(data))
    await call.send(data)


def _text(call: DirectCall, name: str) -> str:
    value = call.params.value.get(name)
    if not isinstance(value, str):
        raise OperationRefused("invalid", f"{call.operation} needs `{name}`, a text.", {"reason": "invalid"})
    return value


def _count(call: DirectCall, name: str) -> int | None:
    value = call.params.value.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise OperationRefused("invalid", f"`{name}` must be a whole number from 0.", {"reason": "invalid"})
    return value
