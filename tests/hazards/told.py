"""What happened inside the server, kept under the key the peer chose, so that a test outside can wait for it."""

import trio


class Told:
    """Each handler notes its end under its key, once; a test asks for it over HTTP and waits."""

    def __init__(self) -> None:
        self._notes: dict[str, dict[str, object]] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._gates: dict[str, trio.Event] = {}

    def note(self, key: str, **what: object) -> None:
        self._notes.setdefault(key, what)
        self._news.unpark_all()

    async def of(self, key: str) -> dict[str, object]:
        while key not in self._notes:
            await self._news.park()
        return self._notes[key]

    def gate(self, key: str) -> trio.Event:
        """A handler waits at it until the test opens it."""
        return self._gates.setdefault(key, trio.Event())
