"""The client that talks to the issuer is made of files that are what they are said to be."""

from pathlib import Path

import pytest

from skygw.auth.issuer_http import open_issuer_client
from skygw.errors import StartupError


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is not a PEM bundle"),
        (b"no certificate", "is not a PEM bundle"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is not a PEM bundle"),
    ],
)
def test_an_issuer_ca_that_is_none_is_a_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match=f"SKYGW_ISSUER_CA: {path} {sentence}"):
        open_issuer_client(ca_file=str(path))


def test_a_directory_is_no_issuer_ca(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="SKYGW_ISSUER_CA"):
        open_issuer_client(ca_file=str(tmp_path))
