"""Whatever stands in the headers of an upload's request is understood or refused, and never our fault."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.errors import Invalid
from skygw.routers import structured_fields
from skygw.routers.ietf_uploads import IetfUploads
from skygw.routers.tus import Tus
from skygw.routers.upload_dialects import Asked, Dialect
from skygw.routers.upload_problems import upload_problem, upload_status
from tests.routers.upload_doors import RULES

NAMES = (
    "Tus-Resumable",
    "Upload-Draft-Interop-Version",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Complete",
    "Upload-Checksum",
    "Upload-Metadata",
    "Upload-Defer-Length",
    "Content-Digest",
    "Repr-Digest",
    "Content-Type",
    "X-HTTP-Method-Override",
)
PIECES = (
    *("0", "1", "9" * 15, "-", "?1", "?0", "1.0.0", "8", "sha1", "sha-256", "sha-512", "=", ":", ",", ";", " ", "YQ=="),
    *("application/partial-upload", "application/offset+octet-stream", "a", '"', "\\", "\xff", "\t", "PATCH", "*"),
)
VALUES = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255), max_size=80
)
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=10)
DIALECTS: list[Dialect] = [Tus(), IetfUploads(now=lambda: datetime.now(UTC))]


@given(fields=FIELDS, length=st.none() | st.integers(0, 10**18))
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda it: type(it).__name__)
def test_a_request_is_read_or_refused(dialect: Dialect, fields: list[tuple[str, str]], length: int | None) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    headers.append((b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length))
    asked = Asked({"headers": headers})
    for read in (dialect.check, dialect.creation, dialect.append, lambda it: dialect.method(it, "POST")):
        try:
            found: Any = read(asked)
        except Invalid as error:
            status = dialect.status_of(error) or upload_status(error)
            assert 400 <= status < 500
            said, body = upload_problem(error, status)
            for name, value in [*said, *dialect.refused(error, RULES)]:
                assert f"{name}{value}".isascii()
                assert "\n" not in value
            assert body.decode().isprintable()
        else:
            if read == dialect.append:
                assert 0 <= found.offset < 10**15
                assert found.length == length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha-256=:YQ==:", {"sha-256": b"a"}),
        ("sha-256=:YQ:", {"sha-256": b"a"}),
        ("a=:YQ==:;x;y=1 ,\tb=::", {"a": b"a", "b": b""}),
        ("a=:YQ==:,a=:Yg==:", {"a": b"b"}),
        ("a", None),
        ("a=1", None),
        ("A=:YQ==:", None),
        ("a=:Y:", None),
        ("a=:YQ==:,", None),
        (",a=:YQ==:", None),
        ("a=:YQ==: b=::", None),
        ("a=(:YQ==:)", None),
        ("", None),
    ],
)
def test_a_dictionary_of_bytes_is_read_as_the_standard_says(text: str, expected: dict[str, bytes] | None) -> None:
    assert structured_fields.byte_dictionary(text) == expected


@pytest.mark.parametrize(
    ("text", "number", "truth"),
    [
        ("5", 5, None),
        (" -7 ", -7, None),
        ('0005;a=1.5;b="x;y";c=:YQ==:;d=?0;e=tok/en;f=@17;g', 5, None),
        ("?1", None, True),
        ("?0;a", None, False),
        ("?1;A", None, None),
        ("5 5", None, None),
        ("5;", None, None),
        ("5\t", None, None),
        ("1.0", None, None),
        (None, None, None),
    ],
)
def test_an_item_is_read_as_the_standard_says(text: str | None, number: int | None, truth: bool | None) -> None:
    assert structured_fields.integer(text) == number
    assert structured_fields.boolean(text) is truth
