"""`skygw migrate`: runs the numbered SQL migrations as the owner of the tables, or says which are waiting."""

from pathlib import Path

import trio

from skygw.cli.configuration import load_settings
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError


def migrate(*, check: bool = False, config: Path | None = None, as_json: AsJson = False) -> int:
    """Bring the database up to date. Doing it again changes nothing; a second run waits for the first.

    Parameters
    ----------
    check
        Change nothing; list the migrations that are waiting and exit with 1 if there are any.
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    from skygw.database import migrate as migrations

    settings = load_settings(config=config)
    url = settings.database_owner_url or (settings.database_url if check else None)
    if url is None:
        raise StartupError(
            "SKYGW_DATABASE_OWNER_URL is not set, and migrations change tables: set it to the URL of the tables' owner "
            "(the embedded database needs no migrating, “skygw serve” does it)"
        )
    terminal = Terminal(as_json=as_json)
    unwatched: list[str] = []
    with terminal.progress("asking the database…" if check else "migrating the database…"):
        if check:
            names = trio.run(migrations.pending, url.get_secret_value())
        else:
            migrated = trio.run(migrations.migrate, url.get_secret_value())
            names, unwatched = migrated.applied, migrated.unwatched
    if as_json:
        terminal.json({"waiting": names} if check else {"applied": names, "unwatched": unwatched})
    else:
        for name in names:
            terminal.line(name)
        if not names:
            terminal.note("the database is up to date")
        if unwatched:
            terminal.note(
                f"this role may not put triggers on {', '.join(unwatched)}: gateways look for changes of the hardware "
                "graph themselves (SKYGW_GRAPH_LOOK_S); the right TRIGGER and another run of this command end that"
            )
    return ExitCode.FAILED if check and names else ExitCode.OK
