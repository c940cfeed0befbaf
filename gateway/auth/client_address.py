"""Where a request comes from: the client's address, seen through trusted proxies only."""

from collections.abc import Container, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from multidict import istr

from gateway.config.parsers import Network

Address = IPv4Address | IPv6Address


_FORWARDING_HEADERS = tuple(map(istr, ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host")))


class Client(NamedTuple):
    """``address`` is None where it cannot be told; such a client is never local."""

    address: str | None
    is_local: bool


def was_forwarded(headers: Container[str]) -> bool:
    """Whether a proxy says that it stands between us and the client."""
    return any(map(headers.__contains__, _FORWARDING_HEADERS))


def client_of(
    peer: str | None, forwarded_for: Sequence[str], was_forwarded: bool, trusted: Sequence[Network]
) -> Client:
    """Who stands at the far end.

    The chain of ``X-Forwarded-For`` is read from the right, for as long as the address before is a trusted proxy: what
    stands further left was written by strangers. A request that a proxy forwarded is local only if the proxy is trusted
    and says so: otherwise a proxy on this machine would make the whole world local.
    """
    if not was_forwarded:
        return _direct(peer)
    address = _parse(peer)
    if address is None:
        return Client(None, False)
    if not _is_trusted(address, trusted):
        return Client(str(address), False)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops):
        address = _parse(hop)
        if address is None:
            return Client(None, False)
        if not _is_trusted(address, trusted):
            break
    return Client(str(address), bool(hops) and address.is_loopback)


def is_local_name(host: str) -> bool:
    """Whether a Host or Origin names this machine: a page on the web can make a browser send any other name here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _parse(name) is not None


def is_local_origin(origin: str) -> bool:
    parts = origin.partition("://")
    if parts[0] not in ("http", "https"):
        return False
    try:
        name = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    address = _parse(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


@lru_cache(maxsize=1024)
def _direct(peer: str | None) -> Client:
    address = _parse(peer)
    return Client(None, False) if address is None else Client(str(address), address.is_loopback)


def _parse(text: str | None) -> Address | None:
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
