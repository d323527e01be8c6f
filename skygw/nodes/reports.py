"""What a durable frame is to the hub: which stream, about what of the node's own, and the text that subscribers get."""

from typing import Any
from uuid import UUID

from skygw.nodes.ports import Binding, DurableReport
from skygw.protocol.codec import BadFrame
from skygw.protocol.frame import MAX_SEQ
from skygw.protocol.json_text import compact
from skygw.protocol.node_frames import Durable, PublishCommandResult, PublishEvent, PublishGap, PublishLog
from skygw.protocol.streams import StreamName

STREAM_OF = {
    "publish_log": StreamName.TELESCOPE_LOG,
    "publish_event": StreamName.NODE_EVENT,
    "publish_command_result": StreamName.COMMAND_RESULT,
}
"""A gap is in all of them."""


class _NotIts(Exception):
    """The report speaks of what its node does not run."""


def durable_report(binding: Binding, frame: Durable, text: str) -> DurableReport:
    """As it will be committed; `text` is the frame as it came. A line or event about a telescope or device that is not
    the node's own is nacked.
    """
    match frame:
        case PublishLog() | PublishEvent():
            try:
                telescope_uid, device_uid = _subject(binding, frame.data.value)
            except _NotIts as refusal:
                return _never(frame.seq, frame.kind, str(refusal))
            return DurableReport(
                seq=frame.seq,
                kind=frame.kind,
                text=text,
                stream=STREAM_OF[frame.kind],
                data=frame.data.text,
                observed_at=frame.observed_at,
                telescope_uid=telescope_uid,
                device_uid=device_uid,
            )
        case PublishGap():
            return DurableReport(
                seq=frame.seq,
                kind=frame.kind,
                text=text,
                data=frame.data.text,
                observed_at=frame.observed_at,
                telescope_uid=_only_telescope(binding),
                missing=_missing(frame.data.value),
            )
        case PublishCommandResult():
            return DurableReport(
                seq=frame.seq,
                kind=frame.kind,
                text=text,
                result=frame,
                stream=STREAM_OF[frame.kind],
                data=_result_data(frame),
                observed_at=frame.observed_at,
                telescope_uid=_only_telescope(binding),
            )


def refused_report(bad: BadFrame) -> DurableReport | None:
    """A frame that is none takes its place in the order of the others, if it can be told which; or `None`."""
    if bad.seq is None or bad.kind is None:
        return None
    return _never(bad.seq, bad.kind, bad.message)


def _never(seq: int, kind: str, why: str) -> DurableReport:
    return DurableReport(seq=seq, kind=kind, text="", nacked=why, stream=STREAM_OF.get(kind))


def _only_telescope(binding: Binding) -> UUID | None:
    """Where it need not be said; an observatory's node has none."""
    return next(iter(binding.telescopes)) if len(binding.telescopes) == 1 else None


def _subject(binding: Binding, data: dict[str, Any]) -> tuple[UUID | None, UUID | None]:
    """The telescope and the device that `data` names; raises `_NotIts`."""
    device_uid = _own(data, "device_uid", "deviceUid", among=binding.devices, of="devices")
    named = _own(data, "telescope_uid", "telescopeUid", among=binding.telescopes, of="telescopes")
    return named or _only_telescope(binding), device_uid


def _own(data: dict[str, Any], *spellings: str, among: frozenset[Any], of: str) -> UUID | None:
    found: UUID | None = None
    for spelling in spellings:
        said = data.get(spelling)
        if said is None:
            continue
        found = _uid(said)
        if found not in among:
            raise _NotIts(f"data.{spelling}: {str(said)[:64]!r} is none of this installation's {of}.")
    return found


def _uid(said: object) -> UUID | None:
    try:
        return UUID(said) if isinstance(said, str) else None
    except ValueError:
        return None


def _missing(data: dict[str, Any]) -> int | None:
    for key in ("count", "missing"):
        said = data.get(key)
        if type(said) is int and 0 <= said <= MAX_SEQ:
            return said
    return None


def _result_data(result: PublishCommandResult) -> str:
    """What subscribers of `command_result` are told; the opaque members keep their bytes."""
    parts = [f'"command_id":"{result.command_id}"', f'"status":"{result.status}"']
    if result.progress is not None:
        parts.append(f'"progress":{compact.encode(result.progress)}')
    for name, opaque in (("result", result.result), ("error", result.error), ("proof", result.proof)):
        if opaque is not None:
            parts.append(f'"{name}":{opaque.text}')
    if result.canceled is not None:
        parts.append(f'"canceled":"{result.canceled}"')
    return "{" + ",".join(parts) + "}"
