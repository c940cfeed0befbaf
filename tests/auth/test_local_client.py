"""Who counts as a program on this machine, and who only looks like one."""

from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.local_client import Arrival, LocalClients, is_local_origin, is_loopback_host

HERE = LocalClients(frozenset({"gateway.test"}), frozenset({"https://app.example.com"}))
HOST = ("Host", "127.0.0.1:8000")


def refusal(*headers: tuple[str, str], host: tuple[str, str] = HOST, **fields: Any) -> str | None:
    plain = {"peer_address": "127.0.0.1", "own_address": "127.0.0.1", "version": (1, 1), "target": "/v1/models"}
    return HERE.refusal(Arrival(**{**plain, **fields}, headers=CIMultiDict([host, *headers])))


def test_a_program_on_this_machine_is_local() -> None:
    assert refusal() is None
    assert refusal(("User-Agent", "curl/8"), ("X-Client-Request-Id", "1"), ("X-Stainless-OS", "Linux")) is None
    assert refusal(peer_address="::1", own_address="::ffff:127.0.0.1") is None


@pytest.mark.parametrize("address", ["192.0.2.1", "172.17.0.1", "::ffff:8.8.8.8", "", None, "nonsense"])
@pytest.mark.parametrize("end", ["peer_address", "own_address"])
def test_both_ends_of_the_socket_are_loopback(end: str, address: str | None) -> None:
    assert refusal(**{end: address}) == "it comes from another machine"


def test_http_1_0_is_what_proxies_speak() -> None:
    assert "HTTP/1.1" in str(refusal(version=(1, 0)))


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server", "Forwarded",
     "X-Real-IP", "Via", "CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
     "Fastly-Client-IP", "Fly-Client-IP", "X-Original-URL", "X-Original-Forwarded-For", "X-Envoy-External-Address",
     "X-Amzn-Trace-Id", "X-Scheme", "CDN-Loop", "X-Azure-ClientIP", "X-Varnish", "Max-Forwards", "Tailscale-User-Login",
     "Remote-User", "X-Auth-Request-Email", "X-MS-Client-Principal", "X-Goog-IAP-JWT-Assertion", "X-Pomerium-Claim-Email",
     "X-WebAuth-User", "X-authentik-username"],
)  # fmt: skip
def test_a_header_shows_a_proxy_whatever_its_value(name: str) -> None:
    for value in ("", "127.0.0.1", "http"):
        assert name.lower() in str(refusal((name, value)))


@pytest.mark.parametrize("target", ["http://127.0.0.1:8000/v1/models", "http://evil.example/v1/models", "*", ""])
def test_a_target_is_a_path(target: str) -> None:
    assert refusal(target=target) is not None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "127.9.9.9", "[::1]:80", "[::1]", "[0:0:0:0:0:0:0:1]"]
)
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback_host(host)
    assert refusal(host=("Host", host)) is None
    assert is_local_origin(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "foo.localhost", "localhost.", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7:80",
     "192.168.1.9", "0.0.0.0", "evil.com@localhost", "[::1]evil.com", "[::1", "::1", "example.com%00.localhost", "localhost%00",
     "localhost:80:80", "localhost:", "localhost:x", "localhost:0", "localhost:99999", "localhost/", "localhost,evil.com",
     "localhost evil.com", "127.1", "0177.0.0.1", "2130706433", "[::ffff:10.0.0.1]", "[::1%25lo]", "localhost#", "notlocalhost"],
)  # fmt: skip
def test_any_other_host_is_refused(host: str) -> None:
    assert "GATEWAY_ALLOWED_HOSTS" in str(refusal(host=("Host", host)))
    assert not is_local_origin(f"http://{host}")


def test_exactly_one_host() -> None:
    assert "GATEWAY_ALLOWED_HOSTS" in str(refusal(("Host", "localhost")))
    no_host = Arrival("127.0.0.1", "127.0.0.1", (1, 1), "/", CIMultiDict())
    assert "GATEWAY_ALLOWED_HOSTS" in str(HERE.refusal(no_host))


def test_a_host_may_be_allowed_by_name() -> None:
    assert refusal(host=("Host", "Gateway.test:8000")) is None
    assert refusal(host=("Host", "a.gateway.test")) is not None


@pytest.mark.parametrize("origin", ["null", "", "https://evil.example", "http://foo.localhost", "file://localhost",
                                    "evil://http://localhost", "http://evil.example/://localhost",
                                    "http://localhost/x"])  # fmt: skip
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    assert "GATEWAY_CORS_ORIGINS" in str(refusal(("Origin", origin)))


def test_pages_from_here_and_named_ones_are_served() -> None:
    for origin in ("http://localhost:3000", "https://[::1]:8", "https://APP.example.com"):
        assert refusal(("Origin", origin), ("Sec-Fetch-Site", "cross-site")) is None
    assert "GATEWAY_CORS_ORIGINS" in str(refusal(("Origin", "http://localhost"), ("Origin", "null")))


@pytest.mark.parametrize(("site", "is_served"), [("same-origin", True), ("none", True), ("cross-site", False),
                                                 ("same-site", False), ("", False), ("made-up", False)])  # fmt: skip
def test_an_image_on_a_foreign_page_is_refused(site: str, is_served: bool) -> None:
    """It has no Origin; the browser says where it comes from all the same."""
    assert (refusal(("Sec-Fetch-Site", site)) is None) is is_served


def test_null_is_never_local() -> None:
    """Any page in a sandbox has it. It may be listed for browsers that send a key."""
    listed = LocalClients(frozenset(), frozenset({"null", "app://obsidian.md"}))
    for origin, is_local in (("null", False), ("app://obsidian.md", True)):
        headers = CIMultiDict([HOST, ("Origin", origin)])
        arrival = Arrival("127.0.0.1", "127.0.0.1", (1, 1), "/v1/models", headers)
        assert (listed.refusal(arrival) is None) is is_local
