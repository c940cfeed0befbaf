"""Chooses the proxy for an upstream by ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, as curl and httpx do.

A name in small letters wins over the same one in capitals, and an empty value means none.
"""

import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.core.upstream_errors import UpstreamUnreachable

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Names a server. ``host`` is in small letters, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """The value of ``Host``, and the authority of a URL: with the port where that is not the usual one."""
        return self.bracketed_host if self.port == _PORTS[self.scheme] else self.authority

    @property
    def authority(self) -> str:
        """The host with its port, as CONNECT names it."""
        return f"{self.bracketed_host}:{self.port}"

    @property
    def bracketed_host(self) -> str:
        """The host as it stands in URLs."""
        return f"[{self.host}]" if ":" in self.host else self.host


class Proxy(NamedTuple):
    """Names an HTTP proxy. ``authorization`` is the value of ``Proxy-Authorization``, None without credentials."""

    host: str
    port: int
    authorization: str | None


class Proxies:
    """Knows the proxies of the environment that the process was started in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        by_default = _value(environ, "ALL_PROXY")
        self._urls = {
            "http": ("HTTP_PROXY", _value(environ, "HTTP_PROXY")),
            "https": ("HTTPS_PROXY", _value(environ, "HTTPS_PROXY")),
        }
        for scheme, (_name, url) in self._urls.items():
            if not url:
                self._urls[scheme] = ("ALL_PROXY", by_default)
        self._exceptions = _value(environ, "NO_PROXY").replace(",", " ").lower().split()

    def choose(self, origin: Origin) -> Proxy | None:
        """Returns the proxy for an upstream, None where it is reached directly.

        An upstream on this machine is reached directly, unless the proxy is on this machine, too: another one could not reach it.
        Raises UpstreamUnreachable for a proxy that cannot be used; it names the variable alone, for a URL may have a password.
        """
        name, url = self._urls[origin.scheme]
        if not url or any(_covers(entry, origin) for entry in self._exceptions):
            return None
        proxy = _parse(name, url)
        return None if _is_loopback(origin.host) and not _is_loopback(proxy.host) else proxy


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.lower(), environ.get(name, "")).strip()


def _parse(name: str, url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _PORTS["http"]
    except ValueError:
        raise UpstreamUnreachable(f"The upstream cannot be reached: {name} is not a valid URL.") from None
    if parts.scheme != "http" or not host:
        kind = "SOCKS" if parts.scheme.startswith("socks") else "this kind of"
        raise UpstreamUnreachable(
            f"The upstream cannot be reached: {name} names a proxy of a kind that is not supported. "
            f"Use a URL such as http://proxy:3128 ({kind} proxies cannot be used), or set NO_PROXY."
        )
    if parts.username is None:
        return Proxy(host, port, None)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(host, port, f"Basic {base64.b64encode(credentials).decode()}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _covers(entry: str, origin: Origin) -> bool:
    """Returns whether an entry of NO_PROXY names the upstream: ``*``, a host or a domain with its subdomains, with a port or
    without, an address, or a network such as ``10.0.0.0/8``."""
    if entry == "*":
        return True
    name, port = _split_port(entry)
    if port is not None and port != origin.port:
        return False
    name = name.strip("[]")
    try:
        network = ipaddress.ip_network(name, strict=False)
        return ipaddress.ip_address(origin.host.partition("%")[0]) in network
    except ValueError:
        domain, host = name.removeprefix("*").strip("."), origin.host.rstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    is_ipv6 = ":" in name and not name.endswith("]")
    return (name, int(port)) if colon and port.isdecimal() and port.isascii() and not is_ipv6 else (entry, None)
