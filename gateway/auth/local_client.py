"""Decides whether a request comes from a program on this machine: open mode serves nobody else. Pure.

The address alone does not tell. A proxy on this machine makes every client look local, and a web page makes its visitor's
browser send requests from here. So everything by which a proxy or a foreign page shows itself is looked for, and what is
unclear is refused.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from multidict import MultiMapping

HTTP_1_1 = (1, 1)

_PROXY_PREFIXES = (
    "x-forward", "forward", "x-original-", "x-envoy-", "x-amzn-", "x-amz-cf-", "x-azure-", "x-arr-", "x-appengine-", "x-vercel-",
    "x-akamai-", "akamai-", "x-varnish", "x-traefik-", "x-proxy", "x-nginx-", "x-haproxy-", "x-bluecoat-", "x-real-", "x-remote-",
    "x-originating-", "cf-", "fastly-", "fly-", "tailscale-", "do-connecting-", "wl-proxy-", "proxy-client-",
    "x-auth-request-", "x-ms-client-principal", "x-goog-iap-", "x-goog-authenticated-", "x-pomerium-", "x-webauth-",
    "x-authentik-",
)  # fmt: skip
_PROXY_HEADERS = frozenset({
    "via", "true-client-ip", "client-ip", "x-client-ip", "x-cluster-client-ip", "x-scheme", "x-url-scheme", "x-host", "x-port",
    "x-server", "x-cloud-trace-context", "x-request-start", "x-queue-start", "cdn-loop", "surrogate-capability", "max-forwards",
    "early-data", "front-end-https", "x-cdn", "x-lb", "remote-user", "remote-email", "remote-groups", "x-authenticated-user",
})  # fmt: skip
"""Headers by which proxies, load balancers and content delivery networks show themselves, in lower case: those of Apache, nginx's
and Kubernetes' usual settings, HAProxy, Caddy, Traefik, Envoy, Varnish, Squid, Cloudflare, Fastly, Akamai, Amazon, Azure, Google,
Fly, Vercel, DigitalOcean, Tailscale and WebLogic, and those of proxies that log people in: Authelia, authentik, oauth2-proxy,
Pomerium, and Azure's and Google's."""
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"https?://(.+)")
_OWN_SITE = frozenset({"same-origin", "none"})
"""What ``Sec-Fetch-Site`` says of a request by the gateway's own pages, and by a person who typed the address."""


class Arrival(NamedTuple):
    """How a request arrived: the addresses of both ends of its socket, HTTP's version, and what it says of itself."""

    peer_address: str | None
    own_address: str | None
    version: tuple[int, int]
    target: str
    headers: MultiMapping[str]


class LocalClients(NamedTuple):
    """What the operator counts as local. ``hosts`` and ``origins`` are in lower case."""

    hosts: frozenset[str]
    origins: frozenset[str]

    def refusal(self, arrival: Arrival) -> str | None:
        """Returns why a request is not from a program on this machine, None if it is."""
        if not (_is_loopback(arrival.peer_address) and _is_loopback(arrival.own_address)):
            return "it comes from another machine"
        if arrival.version < HTTP_1_1:
            return "it uses HTTP/1.0, as proxies do (use HTTP/1.1)"
        proxy_header = next(filter(_is_proxy_header, map(str.lower, arrival.headers)), None)
        if proxy_header is not None:
            return f"it came through a proxy (it has the header {proxy_header})"
        if not arrival.target.startswith("/"):
            return "its target is not a path, as if this were a proxy"
        return self._host_refusal(arrival.headers.getall("Host", ())) or self._page_refusal(arrival.headers)

    def _host_refusal(self, hosts: Sequence[str]) -> str | None:
        """Returns why a name is refused: anybody can let a name of their own lead here, and it then stands in Host."""
        if len(hosts) == 1 and (is_loopback_host(hosts[0]) or _host_name(hosts[0]) in self.hosts):
            return None
        return "its Host is not localhost or a loopback address (name others in GATEWAY_ALLOWED_HOSTS)"

    def _page_refusal(self, headers: MultiMapping[str]) -> str | None:
        """Returns why a web page is refused. A page sends its Origin or, with an image or a link, only Sec-Fetch-Site."""
        origins = headers.getall("Origin", ())
        if len(origins) > 1 or not all(self._is_own_page(one.lower()) for one in origins):
            return "it comes from a web page of another origin (name the origin in GATEWAY_CORS_ORIGINS)"
        if not origins and not all(site.strip().lower() in _OWN_SITE for site in headers.getall("Sec-Fetch-Site", ())):
            return "it comes from a web page of another site"
        return None

    def _is_own_page(self, origin: str) -> bool:
        """``null`` is the origin of any page that a stranger puts into a sandbox, so it is never local, listed or not."""
        return origin != "null" and (origin in self.origins or is_local_origin(origin))


def is_loopback_host(host: str) -> bool:
    """Returns whether a Host is ``localhost``, 127.0.0.0/8 or ``[::1]``, written as browsers write it, with or without a port."""
    name = _host_name(host)
    return name is not None and (name == "localhost" or _is_loopback_literal(name))


def is_local_origin(origin: str) -> bool:
    """Returns whether an Origin is a page that a program on this machine serves."""
    found = _ORIGIN.fullmatch(origin)
    return found is not None and is_loopback_host(found[1])


def _host_name(host: str) -> str | None:
    """Returns the name of a Host in lower case, None where it is not a plain name or address with at most a port."""
    found = _HOST.fullmatch(host)
    if found is None or not 0 < int(found[2] or 1) < 65536:
        return None
    return found[1].lower()


def _is_loopback_literal(name: str) -> bool:
    try:
        return (IPv6Address(name[1:-1]) if name.startswith("[") else IPv4Address(name)).is_loopback
    except ValueError:
        return False


def _is_proxy_header(name: str) -> bool:
    return name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES)


@lru_cache(maxsize=1024)
def _is_loopback(text: str | None) -> bool:
    try:
        address = ip_address(text or "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
