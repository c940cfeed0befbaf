"""Where a request comes from: proxies are believed only as far as they are trusted."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.client_address import client_address

TRUSTED = (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("fe80::1%eth0", "fe80::1"),
        (None, None),
        ("", None),
        ("unix:", None),
    ],
)
def test_without_a_proxy_the_peer_is_the_client(peer: str | None, address: str | None) -> None:
    assert client_address(peer, [], TRUSTED) == address
    assert client_address(peer, ["1.1.1.1"], ()) == address


@pytest.mark.parametrize(
    ("peer", "chain", "address"),
    [
        ("127.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["127.0.0.1, 8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["127.0.0.1", "8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["1.1.1.1, 8.8.8.8, 10.0.0.2"], "8.8.8.8"),
        ("127.0.0.1", ["8.8.8.8:51234"], "8.8.8.8"),
        ("127.0.0.1", ["[2001:db8::1]:51234"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ['"[2001:db8::1]:443"'], "2001:db8::1"),
        ("127.0.0.1", ["::ffff:8.8.8.8"], "8.8.8.8"),
        ("127.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("127.0.0.1", ["1.1.1.1, 8.8.8.8:1, 10.0.0.2:2"], "8.8.8.8"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["8.8.8.8:port"], "127.0.0.1"),
        ("127.0.0.1", ["8.8.8.8, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("127.0.0.1", ["10.0.0.3, nonsense"], "127.0.0.1"),
        ("8.8.8.8", ["127.0.0.1"], "8.8.8.8"),
        ("nonsense", ["127.0.0.1"], None),
    ],
)
def test_behind_a_proxy_only_what_trusted_ones_say_counts(peer: str, chain: list[str], address: str | None) -> None:
    assert client_address(peer, chain, TRUSTED) == address


@given(st.lists(st.sampled_from(["127.0.0.1", "10.0.0.9", "1.2.3.4", "junk", ""]), max_size=4))
def test_whatever_a_stranger_writes_the_address_is_his(forged: list[str]) -> None:
    assert client_address("127.0.0.1", [", ".join([*forged, "6.6.6.6"])], TRUSTED) == "6.6.6.6"
