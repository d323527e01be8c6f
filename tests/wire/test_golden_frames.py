"""Every frame of both directions as it lies on the wire: changing one of these files breaks somebody's node."""

from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from skygw.ids import InstallId
from skygw.protocol.codec import Read, encode
from skygw.protocol.commander_frames import CommanderAnswerFrame, CommandEvent, CommandResultEvent
from skygw.protocol.streams import EventGap, EventLive, EventStale, EventSubscriptionEnded, StreamName
from skygw.protocol.subscriber_frames import AnswerFrame, LoggedEvent, RetainedEvent
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.dialects import WITH_EXTENSIONS
from skygw.telemetry.value import Value
from tests.fakes.memory_log import an_event
from tests.wire.samples import DIRECTIONS, FILES, direction_of, kind_of, name_of, text_of

TOLD = [path for path in FILES if direction_of(path).startswith("to_") and '"subscription_id"' in text_of(path)]
"""What is told of subscriptions is written by a dialect; nobody writes it from a model."""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_read_as_its_kind(path: Path) -> None:
    [read] = DIRECTIONS[direction_of(path)].decode(text_of(path))
    assert isinstance(read, Read), read
    assert read.frame.kind == kind_of(path)


@pytest.mark.parametrize("path", [path for path in FILES if path not in TOLD], ids=name_of)
def test_a_golden_frame_is_written_back_byte_for_byte(path: Path) -> None:
    [read] = DIRECTIONS[direction_of(path)].decode(text_of(path))
    assert encode(read.frame) == text_of(path)


@pytest.mark.parametrize("path", TOLD, ids=name_of)
async def test_what_is_told_of_a_subscription_is_written_as_the_golden_frame(path: Path) -> None:
    [read] = DIRECTIONS[direction_of(path)].decode(text_of(path))
    assert isinstance(read, Read)
    assert told(read.frame) == text_of(path)


def told(frame: AnswerFrame | CommanderAnswerFrame) -> str | None:
    """The same in the words of the dialect."""
    match frame:
        case RetainedEvent():
            value = a_value(StreamName(frame.kind.removeprefix("event_")), frame.install_id)
            value.data = frame.data.text
            value.observed_at, value.received_at = frame.observed_at, frame.received_at
            value.max_silence_s, value.stale = frame.max_silence_s, frame.stale
            return WITH_EXTENSIONS.value(
                frame.subscription_id, value, position=frame.position, prev=frame.prev, fields=None
            )
        case LoggedEvent() | CommandEvent() | CommandResultEvent():
            assert frame.data is not None
            assert frame.position is not None
            assert frame.subscription_id is not None
            stream = StreamName(frame.kind.removeprefix("event_"))
            event = an_event(
                stream,
                frame.data.text,
                install_id=frame.install_id,
                observed_at=frame.observed_at,
                received_at=frame.received_at,
            )
            return WITH_EXTENSIONS.event(frame.subscription_id, event, position=frame.position, prev=frame.prev)
        case EventGap():
            gap = None if frame.data is None else an_event(None, frame.data.text, install_id=frame.install_id)
            assert (frame.from_, frame.to) == (frame.prev, frame.position)
            return WITH_EXTENSIONS.gap(
                frame.subscription_id,
                position=frame.position,
                prev=frame.prev,
                missing=frame.count,
                reason=frame.reason,
                event=gap,
            )
        case EventStale():
            value = a_value(StreamName.DEVICE_SNAPSHOT, uuid4(), frame.uid)
            value.observed_at = datetime.fromisoformat(frame.last_observed_at)
            return WITH_EXTENSIONS.stale(
                frame.subscription_id, value, position=frame.position, prev=frame.prev, reason=frame.reason
            )
        case EventSubscriptionEnded():
            return WITH_EXTENSIONS.ended(
                frame.subscription_id, position=frame.position, reason=frame.reason, message=frame.message
            )
        case EventLive():
            return WITH_EXTENSIONS.live(frame.subscription_id, position=frame.position, prev=frame.prev)
        case _:
            return encode(frame)


def a_value(stream: StreamName, install_id: UUID, uid: UUID | None = None) -> Value:
    return Value(stream, Resource(uid or uuid4(), ResourceKind.DEVICE, InstallId(install_id), uuid4()))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_kind_has_a_golden_frame_and_every_golden_frame_a_kind(direction: str) -> None:
    kinds = {kind_of(path) for path in FILES if direction_of(path) == direction}
    assert kinds == set(DIRECTIONS[direction].models)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_member_of_every_frame_is_shown_in_a_golden_frame(direction: str) -> None:
    shown: dict[type, set[str]] = {}
    for path in FILES:
        if direction_of(path) == direction:
            [read] = DIRECTIONS[direction].decode(text_of(path))
            shown.setdefault(type(read.frame), set()).update(read.frame.model_fields_set)
    # The gateway's clock is in its pings to nodes only.
    not_of_this_side = {("ping", "t_ms")} if direction != "from_gateway" else set()
    missing = {
        (kind, member)
        for kind, model in DIRECTIONS[direction].models.items()
        for member in set(model.model_fields) - shown[model]
    }
    assert missing - not_of_this_side == set()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_golden_frames_of_a_direction_can_travel_in_one_message(direction: str) -> None:
    texts = [text_of(path) for path in FILES if direction_of(path) == direction]
    read = DIRECTIONS[direction].decode("[" + ",".join(texts) + "]")
    assert [one.text for one in read] == texts
