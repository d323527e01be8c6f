"""Between text messages and frames, for both ends; the only place that sees JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, get_args

from skygw.errors import Invalid
from skygw.protocol.commander_frames import (
    CommanderAnswerFrame,
    CommanderFrame,
    read_cancel,
    read_direct,
    read_publish,
)
from skygw.protocol.frame import MAX_SEQ, Frame, FrameT, read_model, write_model
from skygw.protocol.frame import Read as Read
from skygw.protocol.gateway_frames import GatewayFrame
from skygw.protocol.json_text import BrokenJson, JsonObject, read_objects
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE, MAX_TEXT_BYTES
from skygw.protocol.node_frames import NodeFrame
from skygw.protocol.subscriber_frames import AnswerFrame, SubscriberFrame

if TYPE_CHECKING:
    from skygw.protocol.quick_json import QuickReader

DURABLE_KINDS = frozenset({"publish_log", "publish_event", "publish_gap", "publish_command_result"})


class ProtocolViolation(Exception):
    """The framing is broken: the socket ends with 4500 and this sentence."""


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A well-framed message that is no frame. `seq` is set on a durable publish: it is nacked, else `error`.

    `message`, `kind` and `id` are short, and can be said back whatever was sent.
    """

    message: str
    kind: str | None
    id: str | None
    seq: int | None
    unknown_kind: bool = False


def _quick_reader(models: Mapping[str, type[FrameT]]) -> "QuickReader[FrameT] | None":
    """A gateway brings the compiled parsers; a node does well without them."""
    try:
        from skygw.protocol.quick_json import QuickReader
    except ModuleNotFoundError:
        return None
    return QuickReader(models)


class _Direction(Generic[FrameT]):
    """The frames one end may send, by kind."""

    def __init__(self, union: Any, *, careful: Mapping[str, Callable[[JsonObject], FrameT]] | None = None) -> None:
        """Kinds that are read by functions of their own, which raise `Invalid`, are `careful`."""
        self._careful = careful or {}
        self._models: dict[str, type[FrameT]] = {
            kind: model for model in get_args(union) for kind in get_args(model.model_fields["kind"].annotation)
        }
        quick = {kind: model for kind, model in self._models.items() if kind not in self._careful}
        self._quick = _quick_reader(quick)

    @property
    def models(self) -> dict[str, type[FrameT]]:
        return self._models

    @property
    def careful(self) -> frozenset[str]:
        """The kinds that are read by functions of their own, and never quickly."""
        return frozenset(self._careful)

    def decode(self, message: str) -> list[Read[FrameT] | BadFrame]:
        """Reads a text message: one frame or an array. Raises `ProtocolViolation` on broken framing."""
        if len(message) > MAX_TEXT_BYTES or len(raw := message.encode()) > MAX_TEXT_BYTES:
            raise ProtocolViolation(f"a text message of over {MAX_TEXT_BYTES} bytes")
        quick = None if self._quick is None else self._quick.read(message, raw)
        return self._strictly(message) if quick is None else quick

    def _strictly(self, message: str) -> list[Read[FrameT] | BadFrame]:
        try:
            objects = read_objects(message, at_most=MAX_FRAMES_PER_MESSAGE)
        except BrokenJson as error:
            raise ProtocolViolation(str(error)) from None
        return [self._decode(source) for source in objects]

    def _decode(self, source: JsonObject) -> Read[FrameT] | BadFrame:
        kind = source.value("kind")
        if not isinstance(kind, str):
            return _bad(source, "A frame needs a `kind`.", None)
        model = self._models.get(kind)
        if model is None:
            return _bad(source, f"The kind {kind[:64]!r} is not known here.", kind, unknown_kind=True)
        careful = self._careful.get(kind)
        try:
            return Read(read_model(model, source) if careful is None else careful(source), source.text)
        except Invalid as error:
            return _bad(source, f"{kind}: {error.message}", kind)


def _bad(source: JsonObject, message: str, kind: str | None, *, unknown_kind: bool = False) -> BadFrame:
    seq = source.value("seq") if kind in DURABLE_KINDS else None
    if not isinstance(seq, int) or isinstance(seq, bool) or not 1 <= seq <= MAX_SEQ:
        seq = None
    about = next(
        (
            _sayable(value[:250])
            for key in ("command_id", "commandId", "subscription_id", "subscriptionId", "id")
            if isinstance(value := source.value(key), str)
        ),
        None,
    )
    return BadFrame(_sayable(message[:2_000]), kind and _sayable(kind[:64]), about, seq, unknown_kind)


def _sayable(text: str) -> str:
    """A refused frame may hold what no frame may carry; the answer to it must not."""
    return text.encode(errors="replace").decode().replace("\x00", "?")


from_node: _Direction[NodeFrame] = _Direction(NodeFrame)
from_gateway: _Direction[GatewayFrame] = _Direction(GatewayFrame)
from_subscriber: _Direction[SubscriberFrame] = _Direction(SubscriberFrame)
to_subscriber: _Direction[AnswerFrame] = _Direction(AnswerFrame)
from_commander: _Direction[CommanderFrame] = _Direction(
    CommanderFrame,
    careful={"publish_command": read_publish, "cancel_command": read_cancel, "direct_request": read_direct},
)
to_commander: _Direction[CommanderAnswerFrame] = _Direction(CommanderAnswerFrame)

encode: Callable[[Frame], str] = write_model
"""The text of one frame. Raises `ValueError` on NaN and infinities."""
