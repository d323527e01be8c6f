"""The ASGI words used in this room, so that no other module spells them out."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Frameworks type these three arguments in their own ways; the ASGI 3 specification is the contract.
App = Callable[[Any, Any, Any], Awaitable[None]]
