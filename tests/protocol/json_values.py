"""JSON as a hostile or careless peer may write it: any value, with any spacing and any escapes."""

import json
from typing import Any

from hypothesis import strategies as st

# What a WebSocket text message can hold at all is UTF-8; U+0000 is refused, and so has tests of its own.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(texts, values, max_size=6)
writers = st.builds(
    lambda ascii_only, indent, spaced: json.JSONEncoder(
        ensure_ascii=ascii_only, indent=indent, separators=(" , ", "\t: ") if spaced else (",", ":")
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
"""Different programs write the same value differently; each of these texts must be carried as it is."""
