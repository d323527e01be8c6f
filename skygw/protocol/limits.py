"""The sizes a message may have, in one place, because both ends must agree on them (`welcome.limits`)."""

from typing import Final

from pydantic import BaseModel, ConfigDict

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_TEXT_BYTES: Final = 64 * KIB
"""A text message, frame or array of frames."""

MAX_CARRIED_BYTES: Final = MAX_TEXT_BYTES - 4 * KIB
"""Of what a caller has carried to a node: it must fit into one frame, with what the frame adds."""

MAX_SNAPSHOT_BYTES: Final = MAX_TEXT_BYTES - 1 * KIB
"""The `data` of a snapshot: what is around it, as it comes and as other nodes are told of it, fits into a KiB."""

MAX_BINARY_BYTES: Final = 1 * MIB
"""A binary message: one chunk with its 20-byte header."""

MAX_JSON_DEPTH: Final = 32
"""Objects and arrays inside one another. Deeper is `invalid`."""

MAX_JSON_DEPTH_READ: Final = 200
"""Deeper than this is not even read: it would cost the parser's stack. Broken framing."""

MAX_JSON_VALUES: Final = 10_000
"""Values in one document: 64 KiB of `0,0,0,…` would otherwise become 32,768 objects."""

MAX_FRAMES_PER_MESSAGE: Final = 256

MAX_UNACKED_FRAMES: Final = 1_024
"""Durable frames a node may have sent beyond the last `ack`."""

MAX_UNACKED_BYTES: Final = 4 * MIB
"""…and their text. 1,024 frames of the largest size would be 64 MiB; this bounds what one node can hold here."""

FRAMES_PER_S: Final = 500
"""What a node may send in the long run, but for the answers it is asked for."""

BYTES_PER_S: Final = 1 * MIB
"""…and their text."""

REPORTS_PER_FRAME: Final = 5
"""So many durable reports count as one frame. The window of what is unacknowledged holds them back, and they are
committed many at a time: at one a frame a night of 100,000 would take four minutes, so it takes less than one."""

BURST_S: Final = 10.0
"""So many seconds' worth of both may come at once."""

MAX_CHUNK_PAYLOAD: Final = 256 * KIB
"""What our own client puts in one chunk at most; on a slow uplink it puts less."""

MAX_TOKEN_BYTES: Final = 8 * KIB

DIRECT_CREDIT_BYTES: Final = 1 * MIB
"""Decoded payload one response may have on its way to a caller who has not read it."""


class Limits(BaseModel):
    """What a gateway takes from a node, as `welcome` tells it. Sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text_bytes: int = MAX_TEXT_BYTES
    binary_bytes: int = MAX_BINARY_BYTES
    json_depth: int = MAX_JSON_DEPTH
    json_values: int = MAX_JSON_VALUES
    frames_per_message: int = MAX_FRAMES_PER_MESSAGE
    unacked_frames: int = MAX_UNACKED_FRAMES
    unacked_bytes: int = MAX_UNACKED_BYTES
    frames_per_s: int = FRAMES_PER_S
    reports_per_frame: int = 1
    """Of a gateway that does not say each counts."""
    bytes_per_s: int = BYTES_PER_S
