"""Where a request comes from: the client's address, seen through trusted proxies only."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from gateway.config.parsers import Network

Address = IPv4Address | IPv6Address
_HOP = re.compile(r'"?(?:([0-9.]+)(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.%\w-]+)\](?::[0-9]{1,5})?|([0-9A-Fa-f:.%\w-]+))"?')


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """Returns the address of the far end, None where it cannot be told.

    The chain of ``X-Forwarded-For`` is read from the right, for as long as the address before is a trusted proxy: what
    stands further left was written by strangers. Where a proxy wrote something that is no address, the client is known by the
    address of that proxy. It says nothing about who is local (``auth.local_client``).
    """
    if not (forwarded_for and trusted):
        return _normalized(peer)
    address = _parse(peer)
    if address is None or not _is_trusted(address, trusted):
        return _normalized(peer)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops):
        before = _parse_hop(hop)
        if before is None:
            break
        address = before
        if not _is_trusted(address, trusted):
            break
    return str(address)


@lru_cache(maxsize=1024)
def _normalized(peer: str | None) -> str | None:
    address = _parse(peer)
    return None if address is None else str(address)


def _parse(text: str | None) -> Address | None:
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _parse_hop(text: str) -> Address | None:
    """Returns an address that may have a port, as Azure's and IIS's proxies write it: ``1.2.3.4:567``, ``[2001:db8::1]:567``."""
    found = _HOP.fullmatch(text)
    return _parse(found[1] or found[2] or found[3]) if found is not None else None


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
