"""`skygw doctor`: looks at everything the gateway will need, and says of each what is wrong and what to do."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from skygw.cli.audit import audit_database, check_export
from skygw.cli.checks import Check, Verdict, check_data_dir, check_files, check_tls
from skygw.cli.configuration import load_settings
from skygw.cli.flags import SettingsFlags, given
from skygw.cli.remote_checks import Clocks, check_database, check_keys, check_listener
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError
from skygw.settings import Settings

STYLES = {Verdict.OK: "", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}


def doctor(
    *,
    flags: SettingsFlags | None = None,
    config: Path | None = None,
    audit: Annotated[bool, Parameter(negative="")] = False,
    export: Path | None = None,
    check: Path | None = None,
    key: Annotated[list[Path] | None, Parameter(negative="")] = None,
    as_json: AsJson = False,
) -> int:
    """Check everything the gateway needs. Changes nothing; exit code 1 says that something is wrong.

    Parameters
    ----------
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    audit
        Check the audit of commands in the database instead, and say the first thing that is missing, changed or forged.
    export
        With --audit: write all of it to this file, for others to check.
    check
        Check such a file instead; no database is asked.
    key
        The key (PEM, public or private) whose signatures count, instead of the gateway's own; may be given several
        times.
    """
    terminal = Terminal(as_json=as_json)
    if audit and check is not None:
        raise StartupError("--audit reads the database and --check a file: give one of them")
    if export is not None and not audit:
        raise StartupError("--export writes what --audit reads: give both")
    if audit:
        settings = load_settings(given(flags), config=config)
        return audit_database(settings, terminal, export=export, keys=key or ())
    if check is not None:
        return check_export(load_settings(given(flags), config=config), terminal, file=check, keys=key or ())
    if key:
        raise StartupError("--key is for --audit and --check")
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
