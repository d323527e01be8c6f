"""Which hosts stay on this machine."""

import pytest

from skygw.loopback_hosts import is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example.test", "0.0.0.0", "::", "192.168.0.1", "127.0.0.1.example.test"]
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
