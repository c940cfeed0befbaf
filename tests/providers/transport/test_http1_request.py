"""URLs as they are sent, and as they are understood: as they are, or not at all."""

import pytest

from gateway.providers.transport.http1_request import head_start, parse_url
from gateway.providers.transport.proxies import Origin, Proxy

URLS = {
    "http://host/v1": (Origin("http", "host", 80), "/v1", "host"),
    "HTTP://Host": (Origin("http", "host", 80), "/", "host"),
    "http://host:8080?a=b": (Origin("http", "host", 8080), "/?a=b", "host:8080"),
    "https://host:443/a%2Fb?x=%20&y=+#part": (Origin("https", "host", 443), "/a%2Fb?x=%20&y=+", "host"),
    "https://host:80/": (Origin("https", "host", 80), "/", "host:80"),
    "http://[::1]:8080/'q'?\"=1": (Origin("http", "::1", 8080), "/'q'?\"=1", "[::1]:8080"),
    "http://[fe80::1%eth0]/x": (Origin("http", "fe80::1%eth0", 80), "/x", "[fe80::1%eth0]"),
    "http://host/\xe4": (Origin("http", "host", 80), "/\xe4", "host"),
}


@pytest.mark.parametrize("url", URLS)
def test_urls(url: str) -> None:
    found = parse_url(url)
    origin, target, host = URLS[url]
    assert found == (origin, target)
    assert head_start("GET", found, None) == f"GET {target} HTTP/1.1\r\nHost: {host}\r\n"


BAD_URLS = [
    "ftp://host/", "host/v1", "http://", "http:///v1", "http://host:0/", "http://host:65536/", "http://host:x/", "http://a b/",
    "http://user:secret@host/", "http://host/a b", "http://host/a\r\nX: y", "http://host/a\nb", "http://host/a\0b", "http://[::1/",
    "http://host:1:2/", "http://[x]/", "",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_url(url)


@pytest.mark.parametrize("method", ["", "GET ", "G\r\nET", "G/T", "\xe4"])
def test_what_is_no_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        head_start(method, parse_url("http://host/"), None)


def test_a_proxy_gets_the_whole_url_of_an_http_upstream_and_nothing_of_an_https_one() -> None:
    proxy = Proxy("proxy", 3128, "Basic eA==")
    plain = head_start("POST", parse_url("http://host:8080/v1?a"), proxy)
    assert plain == "POST http://host:8080/v1?a HTTP/1.1\r\nHost: host:8080\r\nProxy-Authorization: Basic eA==\r\n"
    assert head_start("POST", parse_url("https://host/v1"), proxy) == "POST /v1 HTTP/1.1\r\nHost: host\r\n"
    assert "Proxy" not in head_start("POST", parse_url("http://host/"), Proxy("proxy", 3128, None))
