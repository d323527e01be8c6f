"""Turns flags, environment and a TOML file into `Settings`, and whatever is wrong with them into one sentence.

Every value keeps the name its author gave it, so that the sentence says where to correct it.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError

from skygw.errors import StartupError
from skygw.settings import ENV_PREFIX, Settings, config_home, is_secret

CONFIG_VARIABLE = "SKYGW_CONFIG"
CLIENT_VARIABLES = frozenset({"SKYGW_URL", "SKYGW_TOKEN", "SKYGW_LEASE_UID"})
"""Read by the commands that call a running gateway; no settings of the gateway itself."""

MAX_SHOWN_CHARS = 80


@dataclass(frozen=True)
class _Layer:
    """Values of one origin by field name. `spelling` turns a field name into what its author wrote."""

    values: Mapping[str, object]
    place: str
    spelling: str

    def name(self, field: str) -> str:
        match self.spelling:
            case "flag":
                return f"--{field.replace('_', '-')}"
            case "variable":
                return f"{ENV_PREFIX}{field.upper()}"
            case _:
                return f"“{field}”"


def load_settings(flags: Mapping[str, object] | None = None, *, config: Path | None = None) -> Settings:
    """Layer flags over environment over file over defaults. Raises `StartupError`.

    `flags` are by field name; those that are None were not given. `config` names the file and wins over `SKYGW_CONFIG`;
    a named file must exist, the one at its usual place need not.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers = (
        _Layer(given, "on the command line", "flag"),
        _Layer(_from_environment(), "in the environment", "variable"),
        _from_file(config),
    )
    for layer in layers:
        _refuse_unknown(layer)
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        merged.update(layer.values)
    try:
        return Settings(**merged)  # type: ignore[arg-type]  # it is the model's work to check them
    except ValidationError as error:
        raise StartupError(_sentence(error.errors(include_url=False), layers)) from None


def _from_environment() -> dict[str, object]:
    not_settings = CLIENT_VARIABLES | {CONFIG_VARIABLE}
    written = {name.upper(): value for name, value in os.environ.items()}
    ours = {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in written.items()
        if name.startswith(ENV_PREFIX) and name not in not_settings
    }
    _refuse_unknown(_Layer(ours, "in the environment", "variable"))
    try:
        return dict(EnvSettingsSource(Settings)())
    except SettingsError as error:
        raise StartupError(f"the environment cannot be read as settings: {error}") from None


def _from_file(named: Path | None) -> _Layer:
    in_environment = os.environ.get(CONFIG_VARIABLE)
    if named is None and in_environment:
        named = Path(in_environment)
    path = (named or config_home() / "skygw.toml").expanduser()
    place = f"in {path}"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return _Layer({}, place, "key")
        raise StartupError(f"the settings file {path} does not exist: create it, or correct its name") from None
    except OSError as error:
        raise StartupError(f"the settings file {path} cannot be read ({error.strerror}): correct its rights") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(f"the settings file {path} is not TOML ({error}): correct it there") from None
    return _Layer(values, place, "key")


def _refuse_unknown(layer: _Layer) -> None:
    for key in layer.values:
        if key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            advice = f"did you mean {layer.name(close[0])}?" if close else "remove it"
            raise StartupError(f"{layer.name(key)} {layer.place} is no setting of the gateway: {advice}")


def _sentence(errors: list[ErrorDetails], layers: tuple[_Layer, ...]) -> str:
    first, more = errors[0], len(errors) - 1
    location = first["loc"]
    limit = _limit(first)
    others = f" ({more} more after that)" if more else ""
    if not location:
        return limit + others
    field = str(location[0])
    for layer in layers:
        if field in layer.values:
            value = "(a secret)" if is_secret(field) else f"“{_cut(str(layer.values[field]))}”"
            return f"{layer.name(field)} is {value}, but {limit}: correct it {layer.place}{others}"
    return f"{ENV_PREFIX}{field.upper()} {limit}{others}"


def _limit(error: ErrorDetails) -> str:
    """The library's words, without its prefix and in the tense of our sentence."""
    text = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:] if text.startswith("Value ") else text


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
