"""Which upstream is reached through which proxy, by the variables that curl and httpx read."""

import pytest

from gateway.core.upstream_errors import UpstreamUnreachable
from gateway.providers.transport.proxies import Origin, Proxies, Proxy

HTTP, HTTPS = Origin("http", "host.example", 80), Origin("https", "host.example", 443)
A, B = Proxy("a", 1, None), Proxy("b", 2, None)

CHOICES = [
    ({}, None, None),
    ({"HTTP_PROXY": "http://a:1"}, A, None),
    ({"http_proxy": "http://a:1"}, A, None),
    ({"HTTPS_PROXY": "http://b:2"}, None, B),
    ({"HTTP_PROXY": "http://a:1", "https_proxy": "http://b:2"}, A, B),
    ({"ALL_PROXY": "http://a:1"}, A, A),
    ({"all_proxy": "a:1"}, A, A),
    ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, A, B),
    ({"HTTP_PROXY": "http://b:2", "http_proxy": "http://a:1"}, A, None),
    ({"HTTP_PROXY": "http://b:2", "http_proxy": ""}, None, None),
    ({"HTTP_PROXY": " "}, None, None),
    ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "*"}, None, None),
    ({"HTTP_PROXY": "http://a:1/", "NO_PROXY": "other"}, A, None),
    ({"HTTP_PROXY": "proxy"}, Proxy("proxy", 80, None), None),
    ({"HTTP_PROXY": "http://[::1]:3128"}, Proxy("::1", 3128, None), None),
    ({"HTTP_PROXY": "http://user:p%40ss@a:1"}, Proxy("a", 1, "Basic dXNlcjpwQHNz"), None),
    ({"HTTP_PROXY": "http://user@a:1"}, Proxy("a", 1, "Basic dXNlcjo="), None),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "http", "https"), CHOICES)
def test_the_variables_choose_a_proxy(environ: dict[str, str], http: Proxy | None, https: Proxy | None) -> None:
    proxies = Proxies(environ)
    assert (proxies.choose(HTTP), proxies.choose(HTTPS)) == (http, https)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "api.localhost"])
def test_an_upstream_on_this_machine_is_not_asked_through_a_proxy_on_another(host: str) -> None:
    origin = Origin("http", host, 11434)
    assert Proxies({"HTTP_PROXY": "http://proxy.example:3128"}).choose(origin) is None
    assert Proxies({"HTTP_PROXY": "http://127.0.0.1:3128"}).choose(origin) == Proxy("127.0.0.1", 3128, None)


COVERED = [
    ("host.example", "host.example", True), ("HOST.Example", "host.example", True), ("example", "host.example", True),
    (".example", "host.example", True), ("*.example", "host.example", True), (".host.example", "host.example", True),
    ("ample", "host.example", False), ("other.example", "host.example", False), ("host.example.com", "host.example", False),
    ("a,host.example", "host.example", True), ("a, host.example ,b", "host.example", True),
    ("a host.example", "host.example", True),
    ("host.example:80", "host.example", True), ("host.example:81", "host.example", False), ("*:81", "host.example", False),
    ("host.example.", "host.example", True), ("10.0.0.0/8", "10.1.2.3", True), ("10.0.0.0/8", "11.1.2.3", False),
    ("10.1.2.3", "10.1.2.3", True), ("10.1.2.3:80", "10.1.2.3", True), ("10.1.2.3:81", "10.1.2.3", False),
    ("127.0.0.0/8", "localhost", False), ("fd00::/8", "fd00::1", True), ("[::1]", "::1", True), ("::1", "::1", True),
    ("[::1]:80", "::1", True), ("[::1]:81", "::1", False), ("0:0::1", "::1", True), ("10.0.0.0/8", "fd00::1", False),
    ("", "host.example", False), (",", "host.example", False), (".", "host.example", False),
]  # fmt: skip


@pytest.mark.parametrize(("no_proxy", "host", "is_covered"), COVERED)
def test_no_proxy_names_hosts_domains_ports_and_networks(no_proxy: str, host: str, is_covered: bool) -> None:
    proxies = Proxies({"HTTP_PROXY": "http://localhost:1", "NO_PROXY": no_proxy})
    assert proxies.choose(Origin("http", host, 80)) == (None if is_covered else Proxy("localhost", 1, None))


@pytest.mark.parametrize(
    "url", ["socks5://a:1", "socks5h://u:secret@a:1", "https://a:1", "ftp://a", "http://", "http://a:x"]
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable(url: str) -> None:
    proxies = Proxies({"ALL_PROXY": url, "NO_PROXY": "direct"})
    with pytest.raises(UpstreamUnreachable, match="ALL_PROXY") as caught:
        proxies.choose(HTTPS)
    assert "secret" not in caught.value.message
    assert proxies.choose(Origin("http", "direct", 80)) is None
