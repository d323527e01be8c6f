"""A small picture of a frame for a person to look at: the pixels stretched to grey and written as PNG."""

import struct
import zlib

BLOCK_BYTES = 2880
"""FITS 4.0 §3.1: header and data come in blocks of this size, the header in cards of 80 characters."""

CARD_CHARS = 80
DARKEST_PERCENT, BRIGHTEST_PERCENT = 5.0, 99.5


def preview_png(frame: bytes) -> bytes:
    """The picture of a frame this simulation made itself; north is up. Slow: call it in a thread."""
    import numpy as np

    cards = _cards(frame)
    width, height, bits = (int(cards[name]) for name in ("NAXIS1", "NAXIS2", "BITPIX"))
    pixels = np.frombuffer(frame, dtype=f">i{bits // 8}", count=width * height, offset=_header_bytes(frame))
    blank = int(cards.get("BLANK", np.iinfo(pixels.dtype).min))
    values = pixels.reshape(height, width).astype("float64")
    seen = values[pixels.reshape(height, width) != blank]
    dark, bright = np.percentile(seen, [DARKEST_PERCENT, BRIGHTEST_PERCENT]) if seen.size else (0.0, 1.0)
    grey = np.clip((values - dark) / max(bright - dark, 1.0) * 255, 0, 255).astype("uint8")[::-1]
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _cards(frame: bytes) -> dict[str, str]:
    header = frame[: _header_bytes(frame)].decode("ascii")
    lines = (header[at : at + CARD_CHARS] for at in range(0, len(header), CARD_CHARS))
    return {line[:8].strip(): line[10:].partition("/")[0].strip() for line in lines if line[8:10] == "= "}


def _header_bytes(frame: bytes) -> int:
    end = frame.index(b"END" + b" " * (CARD_CHARS - 3))
    return (end // BLOCK_BYTES + 1) * BLOCK_BYTES


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
