"""As much of structured header fields (RFC 9651) as uploads are spoken of in: items, and dictionaries of bytes.

A field of an unexpected kind is `None`: whoever reads it passes over it, as the texts that define the fields say.
"""

import re
from base64 import b64decode
from binascii import Error as BinasciiError
from collections.abc import Mapping
from typing import Final

_BARE: Final = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}"  # decimals, integers, dates
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"|%"[ !#-~]*"'  # strings
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01])"  # tokens, bytes, booleans
)
_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_PARAMETERS: Final = rf"(?:;[ ]*{_KEY}(?:={_BARE})?)*"
_INTEGER: Final = re.compile(rf"[ ]*(-?[0-9]{{1,15}}){_PARAMETERS}[ ]*")
_BOOLEAN: Final = re.compile(rf"[ ]*\?([01]){_PARAMETERS}[ ]*")
_BYTES_MEMBER: Final = re.compile(rf"({_KEY})=:([A-Za-z0-9+/=]*):{_PARAMETERS}")
_BETWEEN: Final = re.compile(r"[ \t]*,[ \t]*")


def integer(text: str | None) -> int | None:
    """An Item that is an Integer (RFC 9651 §3.3.1), of 15 digits at most. Its parameters mean nothing here."""
    found = None if text is None else _INTEGER.fullmatch(text)
    return None if found is None else int(found[1])


def boolean(text: str | None) -> bool | None:
    """An Item that is a Boolean (§3.3.6)."""
    found = None if text is None else _BOOLEAN.fullmatch(text)
    return None if found is None else found[1] == "1"


def byte_dictionary(text: str) -> Mapping[str, bytes] | None:
    """A Dictionary of Byte Sequences (§3.2, §3.3.5), as digests come in (RFC 9530 §2); the last of a name counts."""
    text = text.strip(" ")
    found: dict[str, bytes] = {}
    at = 0
    while True:
        member = _BYTES_MEMBER.match(text, at)
        if member is None:
            return None
        try:
            # Padding may be missing (§4.2.7).
            found[member[1]] = b64decode(member[2] + "=" * (-len(member[2]) % 4), validate=True)
        except BinasciiError:
            return None
        if member.end() == len(text):
            return found
        between = _BETWEEN.match(text, member.end())
        if between is None:
            return None
        at = between.end()
