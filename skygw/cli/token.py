"""`skygw token`: a token for trying things out, signed with the development key of this machine."""

import time
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import Parameter

from skygw.cli.configuration import load_settings
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError
from skygw.settings import Settings

OPERATOR = "skygw-cli"
OPERATOR_SCOPES = (
    "nodes:read",
    "nodes:call",
    "nodes:command",
    "nodes:admin",
    "streams:read",
    "assets:read",
    "act_as",
)
NODE_SCOPES = ("node",)
SESSION_S = 600.0
"""Life of the tokens the other commands make for themselves."""


def token(
    kind: Literal["node", "internal"] = "internal",
    *,
    subject: str | None = None,
    scope: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    lifetime_s: Annotated[float, Parameter(alias="--lifetime")] = 3600.0,
    data_dir: Path | None = None,
    config: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Print a token that a gateway on this machine takes, as long as it has no issuer's keys to go by.

    Parameters
    ----------
    kind
        For a node's socket, or for the internal API.
    subject
        The installation's uid for a node; the name of a service otherwise.
    scope
        What the token allows, once per scope; everything of its kind unless given.
    lifetime_s
        Seconds until it expires.
    data_dir
        Where the gateway keeps its key, if not where the settings say.
    config
        The settings file, instead of SKYGW_CONFIG or its usual place.
    """
    if not 0 < lifetime_s <= 30 * 86_400:
        raise StartupError(f"--lifetime-s is {lifetime_s:g}, but should be more than 0 and at most 30 days (2592000)")
    known = NODE_SCOPES if kind == "node" else OPERATOR_SCOPES
    unknown = [name for name in scope if name not in known]
    if unknown:
        raise StartupError(
            f"--scope is “{unknown[0][:80]}”, which says nothing in a token of this kind; known: {', '.join(known)}"
        )
    if kind == "node":
        subject = _installation(subject)
    made = mint(
        load_settings({"data_dir": data_dir}, config=config),
        kind=kind,
        subject=subject or OPERATOR,
        scopes=scope or known,
        lifetime_s=lifetime_s,
    )
    terminal = Terminal(as_json=as_json)
    if as_json:
        terminal.json({"token": made, "expiresInS": lifetime_s})
    else:
        terminal.line(made)
    return ExitCode.OK


def mint(
    settings: Settings, *, kind: Literal["node", "internal"], subject: str, scopes: tuple[str, ...], lifetime_s: float
) -> str:
    """A token signed with the development key. Raises `StartupError` where such a token would open nothing."""
    from skygw.auth import development

    if settings.has_keys:
        raise StartupError(
            "the gateway of these settings goes by its issuer's keys and takes no development tokens: "
            "get a token from the issuer and set SKYGW_TOKEN"
        )
    audiences = settings.node_audiences if kind == "node" else settings.internal_audiences
    return development.mint(
        development.load(settings.data_dir),
        subject=subject,
        audience=audiences[0],
        scopes=scopes,
        lifetime_s=lifetime_s,
        now=time.time(),
    )


def _installation(subject: str | None) -> str:
    if subject is None:
        raise StartupError("a node's token names its installation: give its uid with --subject")
    try:
        return str(UUID(subject))
    except ValueError:
        raise StartupError(f"--subject is “{subject[:80]}”, but should be the installation's uid, a UUID") from None
