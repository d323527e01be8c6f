"""Whose address counts as the caller's, and which networks are let in."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.auth.networks import allowed, client_address, parse_address, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "2001:db8:1::/48"])


def address_of(peer: str, *forwarded_for: str) -> str | None:
    found = client_address(peer, forwarded_for, PROXIES)
    return None if found is None else str(found)


def test_a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_writes() -> None:
    assert address_of("192.0.2.9", "127.0.0.1") == "192.0.2.9"
    assert address_of("192.0.2.9") == "192.0.2.9"


def test_a_trusted_proxy_names_the_client() -> None:
    assert address_of("10.0.0.1", "198.51.100.7") == "198.51.100.7"


def test_what_the_client_wrote_itself_does_not_count() -> None:
    assert address_of("10.0.0.1", "127.0.0.1, 198.51.100.7") == "198.51.100.7"
    assert address_of("10.0.0.1", "garbage, 198.51.100.7") == "198.51.100.7"


def test_several_trusted_hops_are_walked_from_the_right() -> None:
    assert address_of("10.0.0.1", "127.0.0.1, 198.51.100.7, 10.2.0.1, 2001:db8:1::5") == "198.51.100.7"


def test_several_headers_are_one_list_in_their_order() -> None:
    assert address_of("10.0.0.1", "127.0.0.1, 198.51.100.7", "10.2.0.1") == "198.51.100.7"
    assert address_of("10.0.0.1", "10.2.0.1", "198.51.100.7") == "198.51.100.7"


def test_if_every_hop_is_trusted_the_farthest_is_the_client() -> None:
    assert address_of("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"
    assert address_of("10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize("hop", ["unknown", "_hidden", "10.0.0.256", "localhost", "1.2.3.4:x:y", "\0"])
def test_garbage_from_a_trusted_proxy_is_nobodys_address(hop: str) -> None:
    found = client_address("10.0.0.1", [f"198.51.100.7, {hop}"], PROXIES)
    assert found is None
    assert not allowed(None, parse_networks(["0.0.0.0/0", "::/0"]))


@pytest.mark.parametrize("value", ["", " ", ",", " , ,"])
def test_an_empty_header_is_no_header(value: str) -> None:
    assert address_of("10.0.0.1", value) == "10.0.0.1"


@pytest.mark.parametrize(
    ("hop", "client"),
    [
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8:9::1]:4711", "2001:db8:9::1"),
        ("[2001:db8:9::1]", "2001:db8:9::1"),
        ("2001:db8:9::1", "2001:db8:9::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
    ],
)
def test_ports_brackets_and_mapped_addresses_are_understood(hop: str, client: str) -> None:
    assert address_of("::ffff:10.0.0.1", hop) == client


@pytest.mark.parametrize("peer", ["", "unix:/run/proxy.sock", "<local>", "None"])
def test_a_peer_without_an_address_is_nobody(peer: str) -> None:
    assert address_of(peer, "127.0.0.1") is None


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_no_header_and_no_peer_raises(peer: str, forwarded_for: list[str]) -> None:
    everybody = parse_networks(["0.0.0.0/0", "::/0"])
    found = client_address(peer, forwarded_for, everybody)
    assert found is None or found == parse_address(str(found))


def test_networks_hold_their_own_addresses_only() -> None:
    networks = parse_networks(["127.0.0.0/8", "::1/128", "192.0.2.4"])
    for inside in ("127.0.0.1", "::1", "192.0.2.4", "::ffff:127.0.0.1"):
        assert allowed(parse_address(inside), networks)
    for outside in ("128.0.0.1", "::2", "192.0.2.5", "::ffff:128.0.0.1"):
        assert not allowed(parse_address(outside), networks)


def test_nothing_is_let_in_by_no_networks() -> None:
    assert not allowed(ip_address("127.0.0.1"), ())


def test_a_mapped_network_is_the_ipv4_one_it_stands_for() -> None:
    [network] = parse_networks(["::ffff:10.0.0.0/104"])
    assert str(network) == "10.0.0.0/8"


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0", "example.test", "::/129", "10.0.0.0-10.0.0.9"])
def test_a_network_that_is_none_is_quoted_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match=f"“{text}” is not a network"):
        parse_networks(["127.0.0.0/8", text])


def test_host_bits_in_a_network_are_pointed_out_with_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"inside 10\.0\.0\.0/8"):
        parse_networks(["10.1.2.3/8"])
