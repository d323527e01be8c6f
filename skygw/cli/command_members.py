"""`key=value` on the command line becomes the members of a command, read by the catalogue where that knows the type."""

import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from skygw.errors import StartupError
from skygw.protocol.command_catalogue import known, misfits
from skygw.protocol.json_text import BrokenJson, read_object
from skygw.protocol.safing import is_safing


def command_of(command_type: str, pairs: Sequence[str], body: str | None) -> dict[str, Any]:
    """The command as it is sent: the members of `body` and then the pairs. Raises `StartupError`.

    A value is JSON, or else text; where the catalogue wants text it is text. A dot leads into an object.
    """
    command: dict[str, Any] = {"command_type": command_type}
    if body is not None:
        members = _json(f'{{"body":{body}}}', "--json-body")
        if not isinstance(members, dict):
            raise StartupError("--json-body should be a JSON object, such as {}")
        if members.pop("command_type", command_type) != command_type:
            raise StartupError(f"--json-body has another command_type than {command_type}")
        command |= members
    for pair in pairs:
        key, said, value = pair.partition("=")
        path = key.split(".")
        if not said or not all(path):
            raise StartupError(f"“{pair[:80]}” should be key=value, such as duration_s=10 or target.ra_deg=83.6")
        _put(command, path, _value(value, key, _kinds(command_type, path)))
    if not is_safing(command_type):
        wrong = misfits(command_type, command)
        if wrong:
            where = ".".join(str(step) for step in wrong[0]["loc"])
            raise StartupError(f"this is no {command_type}: {where}: {wrong[0]['msg']}")
    return command


def _put(command: dict[str, Any], path: Sequence[str], value: Any) -> None:
    inside: Any = command
    for step in path[:-1]:
        inside = inside.setdefault(step, {})
        if not isinstance(inside, dict):
            raise StartupError(f"{'.'.join(path)} leads into {step}, which is no object")
    if path[-1] in inside:
        raise StartupError(f"{'.'.join(path)} is said twice")
    inside[path[-1]] = value


def _value(text: str, key: str, kinds: frozenset[type]) -> Any:
    if kinds == {str}:
        return text
    if text.startswith(("{", "[", '"')):
        return _json(f'{{"value":{text}}}', key)
    try:
        return _json(f'{{"value":{text}}}', key)
    except StartupError:
        return text


def _json(document: str, what: str) -> Any:
    """The one member of a document, read as strictly as the gateway reads it."""
    try:
        found = read_object(document)
    except BrokenJson as error:
        raise StartupError(f"{what} is no JSON: {error}") from None
    if found.flaw is not None or len(found.members) != 1:
        raise StartupError(f"{what} is no JSON that can be sent: {found.flaw or 'more than one value'}")
    return next(iter(found.members.values())).value


def _kinds(command_type: str, path: Iterable[str]) -> frozenset[type]:
    """Which types the catalogue has there; none where it does not know."""
    kinds = frozenset({kind}) if (kind := known(command_type)) else frozenset[type]()
    for step in path:
        models = [kind for kind in kinds if issubclass(kind, BaseModel)]
        kinds = frozenset(
            kind
            for model in models
            for name, field in model.model_fields.items()
            if step in (name, to_camel(name))
            for kind in _leaves(field.annotation)
        )
    return kinds


def _leaves(annotation: Any) -> Iterable[type]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _leaves(arguments[0])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _leaves(argument)
    elif origin is Literal:
        yield from (type(argument) for argument in arguments)
    elif isinstance(annotation, type) and annotation is not types.NoneType:
        yield annotation
