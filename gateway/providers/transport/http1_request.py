"""Computes what is the same for all requests to one URL: where they go, and how their heads begin."""

import re
from typing import NamedTuple

from gateway.providers.transport.proxies import Origin, Proxy

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+(?:%[0-9a-z._~-]+)?\]|[^\[\]:@\s]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_NO_TARGET = re.compile(r"[\x00-\x20\x7f]")


class Url(NamedTuple):
    """Holds the parts of a URL; ``target`` is the path with the query, as it was given."""

    origin: Origin
    target: str


def parse_url(url: str) -> Url:
    """Returns the parts of a URL. Raises ValueError."""
    found = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(found[2]) if found else None
    if found is None or authority is None or _NO_TARGET.search(found[3]):
        raise ValueError("is no http or https URL")
    scheme, target = found[1].lower(), found[3]
    port = int(authority[2]) if authority[2] else {"http": 80, "https": 443}[scheme]
    if not 0 < port < 65536:
        raise ValueError("has an invalid port")
    return Url(Origin(scheme, authority[1].strip("[]").lower(), port), target if target[:1] == "/" else f"/{target}")


def head_start(method: str, url: Url, proxy: Proxy | None) -> str:
    """Returns the beginning of a head: the request line and ``Host``. Raises ValueError.

    A proxy gets the whole URL of an http upstream, and its credentials. To an https upstream it gives a tunnel, in which it
    sees nothing.
    """
    if TOKEN.fullmatch(method) is None:
        raise ValueError("is no method")
    host = f"Host: {url.origin.netloc}\r\n"
    if proxy is None or url.origin.scheme == "https":
        return f"{method} {url.target} HTTP/1.1\r\n{host}"
    own = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"{method} http://{url.origin.netloc}{url.target} HTTP/1.1\r\n{host}{own}"
