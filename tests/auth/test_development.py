"""The development key is made once, kept to its owner, and good for tokens of this gateway only."""

from pathlib import Path
from uuid import UUID

import pytest
import trio

from skygw.auth.authenticator import Authenticator
from skygw.auth.development import ISSUER, KEY_FILE, DevelopmentKey, key_source, load, load_or_make, mint
from skygw.errors import StartupError, Unauthenticated
from tests.auth.signing import INSTALL_ID, NOW


def gateway_with(key: DevelopmentKey, *, now: float = NOW) -> Authenticator:
    return Authenticator(
        issuer=ISSUER,
        node_audiences=["sky-node-gateway"],
        service_audiences=["sky-node-gateway-internal"],
        keys=key_source(key),
        now=lambda: now,
    )


def node_token(key: DevelopmentKey) -> str:
    return mint(key, subject=INSTALL_ID, audience="sky-node-gateway", scopes=["node"], lifetime_s=60, now=NOW)


async def test_a_minted_node_token_opens_the_gateway_that_holds_the_key(tmp_path: Path) -> None:
    key = load_or_make(tmp_path)
    principal = await gateway_with(key).node(node_token(key))
    assert principal.install_id == UUID(INSTALL_ID)
    assert principal.expires_at == NOW + 60


async def test_a_minted_service_token_carries_its_scopes(tmp_path: Path) -> None:
    key = load_or_make(tmp_path)
    token = mint(
        key,
        subject="operator",
        audience="sky-node-gateway-internal",
        scopes=["nodes:read", "act_as"],
        lifetime_s=60,
        now=NOW,
    )
    principal = await gateway_with(key).service(token)
    assert principal.service == "operator"
    assert principal.scopes == {"nodes:read", "act_as"}


async def test_a_minted_token_expires(tmp_path: Path) -> None:
    key = load_or_make(tmp_path)
    with pytest.raises(Unauthenticated, match="has expired"):
        await gateway_with(key, now=NOW + 66).node(node_token(key))


async def test_a_token_of_another_data_directory_is_refused(tmp_path: Path) -> None:
    other = load_or_make(tmp_path / "other")
    with pytest.raises(Unauthenticated):
        await gateway_with(load_or_make(tmp_path / "ours")).node(node_token(other))


def test_the_key_is_kept_and_used_again(tmp_path: Path) -> None:
    first, second = load_or_make(tmp_path), load_or_make(tmp_path)
    assert first.kid == second.kid
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_others_could_read_is_not_used(tmp_path: Path, mode: int) -> None:
    load_or_make(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(StartupError, match="can be read by other users"):
        load_or_make(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_file_that_is_no_key_is_left_alone_and_said_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(StartupError, match="not a P-256 key"):
        load_or_make(tmp_path)
    assert path.read_bytes() == content


def test_a_link_in_place_of_the_key_is_not_followed(tmp_path: Path) -> None:
    load_or_make(tmp_path / "elsewhere")
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "elsewhere" / KEY_FILE)
    with pytest.raises(StartupError, match="cannot be used"):
        load_or_make(tmp_path)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        load_or_make(tmp_path / "file")


def test_who_only_looks_for_the_key_finds_the_one_there_is_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"no development key in .*nowhere: “skygw serve” makes one"):
        load(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    assert load_or_make(tmp_path).kid == load(tmp_path).kid


async def test_programs_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    found: list[DevelopmentKey] = []

    async def start() -> None:
        found.append(await trio.to_thread.run_sync(load_or_make, tmp_path))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(start)
    assert len({key.kid for key in found}) == 1
    assert [path.name for path in await trio.Path(tmp_path).iterdir()] == [KEY_FILE]


def test_the_private_key_is_not_printed(tmp_path: Path) -> None:
    key = load_or_make(tmp_path)
    assert repr(key) == f"DevelopmentKey(kid='{key.kid}')"
