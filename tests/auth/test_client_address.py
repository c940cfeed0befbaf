"""Where a request comes from: proxies are believed only as far as they are trusted."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.client_address import Client, client_of, is_local_name, is_local_origin, was_forwarded

TRUSTED = (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "address", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.9.9.9", "127.9.9.9", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::ffff:8.8.8.8", "8.8.8.8", False),
        ("fe80::1%eth0", "fe80::1", False),
        ("10.0.0.1", "10.0.0.1", False),
        (None, None, False),
        ("", None, False),
        ("unix:", None, False),
    ],
)
def test_without_a_proxy_the_peer_is_the_client(peer: str | None, address: str | None, is_local: bool) -> None:
    assert client_of(peer, [], False, TRUSTED) == Client(address, is_local)


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("127.0.0.1", ["8.8.8.8"], Client("8.8.8.8", False)),
        ("127.0.0.1", ["127.0.0.1"], Client("127.0.0.1", True)),
        ("127.0.0.1", ["127.0.0.1, 8.8.8.8"], Client("8.8.8.8", False)),
        ("127.0.0.1", ["127.0.0.1", "8.8.8.8"], Client("8.8.8.8", False)),
        ("127.0.0.1", ["1.1.1.1, 8.8.8.8, 10.0.0.2"], Client("8.8.8.8", False)),
        ("10.0.0.1", ["127.0.0.5"], Client("127.0.0.5", True)),
        ("127.0.0.1", [], Client("127.0.0.1", False)),
        ("127.0.0.1", [""], Client(None, False)),
        ("127.0.0.1", ["unknown"], Client(None, False)),
        ("127.0.0.1", ["127.0.0.1, nonsense"], Client(None, False)),
        ("8.8.8.8", ["127.0.0.1"], Client("8.8.8.8", False)),
        ("nonsense", ["127.0.0.1"], Client(None, False)),
    ],
)
def test_behind_a_proxy_only_what_trusted_ones_say_counts(peer: str, chain: list[str], client: Client) -> None:
    assert client_of(peer, chain, True, TRUSTED) == client


def test_an_untrusted_proxy_on_this_machine_makes_nobody_local() -> None:
    assert client_of("127.0.0.1", ["127.0.0.1"], True, ()) == Client("127.0.0.1", False)


@given(st.lists(st.sampled_from(["127.0.0.1", "10.0.0.9", "1.2.3.4", "junk", ""]), max_size=4))
def test_whatever_a_stranger_writes_he_is_never_local(forged: list[str]) -> None:
    chain = [", ".join([*forged, "6.6.6.6"])]
    assert client_of("127.0.0.1", chain, True, TRUSTED) == Client("6.6.6.6", False)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"])
def test_every_forwarding_header_tells_a_proxy(name: str) -> None:
    assert was_forwarded({name})
    assert not was_forwarded({"Host"})


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "app.localhost", "127.0.0.1:80", "[::1]:80", "192.168.1.9"]
)
def test_names_of_this_machine_and_addresses_are_local_names(host: str) -> None:
    assert is_local_name(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "notlocalhost"]
)
def test_a_name_that_anybody_can_point_here_is_not_local(host: str) -> None:
    assert not is_local_name(host)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8", "http://a.localhost"]
)
def test_pages_from_this_machine_are_local(origin: str) -> None:
    assert is_local_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://192.168.1.9",
        "file://localhost",
        "evil://http://localhost",
        "http://evil.example/://localhost",
        "http://localhost.evil.example",
        "http://[::1",
    ],
)
def test_pages_from_elsewhere_are_not_local(origin: str) -> None:
    assert not is_local_origin(origin)
