"""Makes a command-line option of every setting that may be seen by other users of the machine."""

from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from skygw.settings import Settings, is_secret

# Secrets are left out: an argument list can be read by everybody on the machine.

if TYPE_CHECKING:

    class SettingsFlags:
        """The settings given as flags, by field name; None where none was given."""

else:

    def _option(name: str) -> tuple[str, object, object]:
        setting = Settings.model_fields[name]
        kind = bool if setting.annotation is bool else str
        parameter = Parameter(help=setting.description, show_default=False, group="Settings")
        return name, Annotated[kind | None, parameter], field(default=None)

    _Options = make_dataclass(
        "SettingsFlags", [_option(name) for name in Settings.model_fields if not is_secret(name)], kw_only=True
    )
    # It would say `types`, and Cyclopts takes the classes of the standard library for single values.
    _Options.__module__ = __name__
    SettingsFlags = Parameter(name="*")(_Options)


def given(flags: SettingsFlags | None) -> dict[str, object]:
    """What was given, as `load_settings` takes it."""
    return {} if flags is None else vars(flags)
