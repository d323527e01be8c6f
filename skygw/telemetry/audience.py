"""Who listens to what: found from the resource that changed, so that it costs what matches and not what there is."""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from skygw.ids import InstallId
from skygw.protocol.streams import StreamFilter


class About(Protocol):
    """What filters ask of a resource or an event."""

    @property
    def install_id(self) -> InstallId | None: ...
    @property
    def observatory_uid(self) -> UUID | None: ...
    @property
    def telescope_uid(self) -> UUID | None: ...
    @property
    def device_uid(self) -> UUID | None: ...
    @property
    def device_type(self) -> str | None: ...
    @property
    def parts(self) -> Collection[UUID]: ...


class Sight(Protocol):
    """What a listener may see at all, whatever it asks for: something of one observatory."""

    @property
    def observatory_uid(self) -> UUID: ...

    def may_see(self, about: About) -> bool: ...


class Want:
    """A filter and what its owner may see."""

    __slots__ = ("device_types", "devices", "installs", "observatories", "sight", "telescopes", "wanted")

    def __init__(self, wanted: StreamFilter, sight: Sight | None = None) -> None:
        self.devices = None if wanted.device_uid is None else frozenset(wanted.device_uid)
        self.installs = None if wanted.install_id is None else frozenset(wanted.install_id)
        self.telescopes = None if wanted.telescope_uid is None else frozenset(wanted.telescope_uid)
        observatories = wanted.observatory_uid
        if observatories is None and sight is not None:  # or who asks for everything would be found by the whole fleet
            observatories = (sight.observatory_uid,)
        self.observatories = None if observatories is None else frozenset(observatories)
        self.device_types = None if wanted.device_type is None else frozenset(wanted.device_type)
        self.sight = sight
        self.wanted = wanted

    def fits(self, about: About) -> bool:
        """Whether all keys fit."""
        if self.devices is not None and about.device_uid not in self.devices and self.devices.isdisjoint(about.parts):
            return False
        return (
            (self.telescopes is None or about.telescope_uid in self.telescopes)
            and (self.observatories is None or about.observatory_uid in self.observatories)
            and (self.device_types is None or about.device_type in self.device_types)
            and (self.installs is None or about.install_id in self.installs)
            and (self.sight is None or self.sight.may_see(about))
        )

    def might_have_fitted(self, about: About) -> bool:
        """Whether something lost of a node, of which only the node is known, could have been wanted."""
        return (
            (self.telescopes is None or about.telescope_uid in self.telescopes)
            and (self.observatories is None or about.observatory_uid in self.observatories)
            and (self.installs is None or about.install_id in self.installs)
            and (self.sight is None or self.sight.may_see(about))
        )

    def narrowest(self) -> tuple[str, Iterable[object]]:
        """The key that leaves the least, and its values; `("all", (None,))` when nothing is asked."""
        if self.devices is not None:
            return "device", self.devices
        if self.installs is not None:
            return "install", self.installs
        if self.telescopes is not None:
            return "telescope", self.telescopes
        if self.observatories is not None:
            return "observatory", self.observatories
        if self.device_types is not None:
            return "type", self.device_types
        return "all", (None,)


def _places(about: About) -> Iterator[tuple[str, object]]:
    """Where an index keeps what is about this, and where listeners to it stand."""
    yield "all", None
    if about.device_uid is not None:
        yield "device", about.device_uid
    for part in about.parts:
        yield "device", part
    yield "install", about.install_id
    yield "telescope", about.telescope_uid
    yield "observatory", about.observatory_uid
    yield "type", about.device_type


ListenerT = TypeVar("ListenerT")
ThingT = TypeVar("ThingT", bound=About)


class Audience(Generic[ListenerT]):
    """The listeners of one stream. `generation` changes when one comes or goes: until then an answer holds."""

    def __init__(self) -> None:
        self.generation = 0
        self._wants: dict[ListenerT, Want] = {}
        self._standing: dict[tuple[str, object], dict[ListenerT, None]] = {}

    def __len__(self) -> int:
        return len(self._wants)

    def __iter__(self) -> Iterator[ListenerT]:
        return iter(list(self._wants))

    def add(self, listener: ListenerT, want: Want) -> None:
        self._wants[listener] = want
        key, values = want.narrowest()
        for value in values:
            self._standing.setdefault((key, value), {})[listener] = None
        self.generation += 1

    def remove(self, listener: ListenerT) -> None:
        """Does nothing for one that has left already."""
        want = self._wants.pop(listener, None)
        if want is None:
            return
        key, values = want.narrowest()
        for value in values:
            standing = self._standing[key, value]
            del standing[listener]
            if not standing:
                del self._standing[key, value]
        self.generation += 1

    def of(self, about: About) -> list[ListenerT]:
        """Everybody this is for."""
        nobody: dict[ListenerT, None] = {}
        found = dict.fromkeys(chain.from_iterable(self._standing.get(place, nobody) for place in _places(about)))
        return [listener for listener in found if self._wants[listener].fits(about)]

    def of_gap(self, about: About) -> list[ListenerT]:
        """Everybody who might have wanted what is missing; rare, so all are asked."""
        return [listener for listener, want in self._wants.items() if want.might_have_fitted(about)]


class Index(Generic[ThingT]):
    """Things of one stream by what filters ask for."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, object], dict[ThingT, None]] = {}

    def add(self, thing: ThingT) -> None:
        for place in _places(thing):
            self._kept.setdefault(place, {})[thing] = None

    def remove(self, thing: ThingT) -> None:
        for place in _places(thing):
            kept = self._kept.get(place)
            if kept is not None:
                kept.pop(thing, None)
                if not kept:
                    del self._kept[place]

    def matching(self, want: Want) -> list[ThingT]:
        """Everything that fits, in no order."""
        key, values = want.narrowest()
        nothing: dict[ThingT, None] = {}
        found = dict.fromkeys(chain.from_iterable(self._kept.get((key, value), nothing) for value in values))
        return [thing for thing in found if want.fits(thing)]
