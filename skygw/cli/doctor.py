"""`skygw doctor`: looks at everything the gateway will need, and says of each what is wrong and what to do."""

from dataclasses import asdict
from pathlib import Path

import trio

from skygw.cli.checks import Check, Verdict, check_data_dir, check_files, check_tls
from skygw.cli.configuration import load_settings
from skygw.cli.flags import SettingsFlags, given
from skygw.cli.remote_checks import Clocks, check_database, check_keys, check_listener
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError
from skygw.settings import Settings

STYLES = {Verdict.OK: "", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}


def doctor(*, flags: SettingsFlags | None = None, config: Path | None = None, as_json: AsJson = False) -> int:
    """Check everything the gateway needs. Changes nothing; exit code 1 says that something is wrong.

    Parameters
    ----------
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    terminal = Terminal(as_json=as_json)
    try:
        settings = load_settings(given(flags), config=config)
    except StartupError as error:
        checks = [Check("settings", Verdict.WRONG, str(error))]
    else:
        with terminal.progress("looking…"):
            checks = [Check("settings", Verdict.OK, "hold together"), *trio.run(examine, settings)]
    wrong = any(check.verdict is Verdict.WRONG for check in checks)
    if as_json:
        terminal.json({"ok": not wrong, "checks": [asdict(check) for check in checks]})
    else:
        terminal.table(
            ("CHECK", "VERDICT", "FOUND", "ADVICE"),
            [(check.name, check.verdict, check.found, check.advice) for check in checks],
            styles=[STYLES[check.verdict] for check in checks],
        )
    return ExitCode.FAILED if wrong else ExitCode.OK


async def examine(settings: Settings) -> list[Check]:
    """Every check but that of the settings themselves, in the order a start would meet them."""
    clocks = Clocks()
    return [
        check_data_dir(settings.data_dir),
        check_files(settings.max_connections),
        await check_listener("node", settings),
        await check_listener("internal", settings),
        check_tls("node", settings),
        check_tls("internal", settings),
        *await check_database(settings, clocks),
        *await check_keys(settings, clocks),
        clocks.check(),
    ]
