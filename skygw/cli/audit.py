"""`skygw doctor --audit` and `--check`: whether what is written down of commands is whole, and all of it in a file."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import trio

from skygw.auth.audit_key import KEY_FILE, TrustedKeys, trust
from skygw.cli.terminal import CommandFailed, ExitCode, Terminal
from skygw.control.audit import AuditBroken, AuditChecker, Found, Item, export_lines, read_export
from skygw.errors import StartupError
from skygw.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def audit_database(settings: Settings, terminal: Terminal, *, export: Path | None, keys: Sequence[Path]) -> int:
    """Checks the database's audit, and writes it to a file too, broken or not."""
    trusted = _trusted(settings, keys)

    async def look() -> tuple[Found, str | None]:
        async with _database_url(settings) as url:
            return await trio.to_thread.run_sync(_read, url, trusted, export)

    with terminal.progress("reading the audit…"):
        found, wrong = trio.run(look)
    if export is not None:
        terminal.note(f"written to {export}")
    return _say(terminal, found, wrong)


def check_export(settings: Settings, terminal: Terminal, *, file: Path, keys: Sequence[Path]) -> int:
    """Checks an export; asks no database."""
    trusted = _trusted(settings, keys)
    found, wrong = Found(), None
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            registry_uid, items = read_export(lines)
            checker = AuditChecker(registry_uid, trusted.verify)
            found = checker.found
            _check(items, checker)
    except AuditBroken as error:
        wrong = str(error)
    return _say(terminal, found, wrong)


def _check(items: Iterator[Item], checker: AuditChecker) -> None:
    for item in items:
        checker.take(item)
    checker.end()


def _trusted(settings: Settings, keys: Sequence[Path]) -> TrustedKeys:
    """The keys that were named, else the gateway's own."""
    if keys:
        return trust(keys)
    own = settings.audit_key or settings.data_dir / KEY_FILE
    if not own.exists():
        raise StartupError(f"there is no key to check signatures with at {own}: give the gateway's key with --key")
    return trust([own])


def _read(url: str, trusted: TrustedKeys, export: Path | None) -> tuple[Found, str | None]:
    from skygw.database.audit import open_audit

    told: list[str] = []
    found = Found()
    with _noting(told), open_audit(url) as audit:
        checker = AuditChecker(audit.registry_uid, trusted.verify)
        found = checker.found
        items = _checked(audit.items(), checker, told)
        if export is None:
            for _ in items:
                pass
        else:
            _write(export, audit.registry_uid, items)
        if not told:
            audit.compare_with_commands()
    return found, told[0] if told else None


def _checked(items: Iterator[Item], checker: AuditChecker, told: list[str]) -> Iterator[Item]:
    """All of them, though something is wrong with one: what is exported is what there is."""
    for item in items:
        if not told:
            with _noting(told):
                checker.take(item)
        yield item
    if not told:
        with _noting(told):
            checker.end()


@contextmanager
def _noting(told: list[str]) -> Iterator[None]:
    try:
        yield
    except AuditBroken as error:
        told.append(str(error))


def _write(path: Path, registry_uid: UUID, items: Iterator[Item]) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            for line in export_lines(registry_uid, items, exported_at=datetime.now(UTC)):
                file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@asynccontextmanager
async def _database_url(settings: Settings) -> "AsyncIterator[str]":
    """The database of the settings; without one the embedded one, which is started if no gateway runs it."""
    from skygw.database.embedded import embedded_postgres, url_of_running

    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    running = url_of_running(settings.data_dir)
    if running is not None:
        yield running
    elif (settings.data_dir / "postgres" / "data").exists():
        async with embedded_postgres(settings.data_dir) as cluster:
            yield cluster.gateway_url
    else:
        raise CommandFailed(f"There is no audit yet: no database is set, and none is in {settings.data_dir}.")


def _say(terminal: Terminal, found: Found, wrong: str | None) -> int:
    if terminal.as_json:
        terminal.json({"ok": wrong is None, "found": wrong or _sentence(found), **asdict(found)})
    elif wrong is None:
        terminal.line(_sentence(found))
    else:
        terminal.complaint(wrong)
    return ExitCode.OK if wrong is None else ExitCode.FAILED


def _sentence(found: Found) -> str:
    signed = f"{found.checkpoints} signed checkpoints"
    if found.last_checkpoint_at is not None:
        signed += f" (the last of {found.last_checkpoint_at:%Y-%m-%d %H:%M} UTC)"
    return (
        f"The audit is whole: {found.steps} steps of {found.installations} installations, {signed}; "
        f"{found.unsigned} steps came after them."
    )
