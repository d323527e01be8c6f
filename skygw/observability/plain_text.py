"""Makes text from elsewhere safe to show: what would steer a terminal or hide in a line is written out instead.

Nodes, callers and device drivers choose the words that end up in log lines and in tables. An escape sequence in them
could recolour, retitle or overwrite what an operator sees; a newline could forge a log line; a bidirectional override
could turn a name around.
"""

import unicodedata

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls (ESC and the C1 CSI among them), invisible formatters (bidi, zero width, tags), surrogates, unassigned and
private code points, line and paragraph separators."""


def escaped(text: str, *, keep: str = "") -> str:
    """`text` with every unsafe character as `\\x1b`, `\\u202e` or `\\U000e0001`, save those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or _is_safe(char) else _written_out(char) for char in text)


def _is_safe(char: str) -> bool:
    return unicodedata.category(char) not in _UNSAFE_CATEGORIES


def _written_out(char: str) -> str:
    match char:
        case "\n":
            return "\\n"
        case "\r":
            return "\\r"
        case "\t":
            return "\\t"
        case _:
            code = ord(char)
            return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
