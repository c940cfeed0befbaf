"""Parses settings: one function for each kind, from text to a value.

Each raises ValueError with a phrase that says what the value must be; the caller puts the name of the setting before it.
"""

import math
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from gateway.core import upstream_routes, validators

Network = IPv4Network | IPv6Network

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_ON = frozenset({"on", "true", "yes", "1"})
_ROUTE = re.compile(r"[a-z0-9_.-]*[a-z0-9_-](/[a-z0-9_.-]*[a-z0-9_-])*")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, never bound
_QUOTES = tuple("\"'“”‘’")
_VARIABLE = re.compile(r"\$[A-Za-z_]\w*|\$?\{\{?\s*[A-Za-z_][\w.]*\s*\}?\}|\$\([A-Za-z_]\w*\)")
_OFF = frozenset({"off", "false", "no", "0"})


def text(value: str) -> str:
    """Returns the text itself."""
    return value


def path(value: str) -> Path:
    """Returns a path; ``~`` at its beginning is a home folder. Raises ValueError."""
    if "\0" in value:
        raise ValueError("holds a NUL")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value!r} names no folder: {error}") from None


def host(value: str) -> str:
    """Returns an address or a name to listen on. Raises ValueError, with the way to write it where that is plain."""
    bare = value.removeprefix("http://").removeprefix("https://").rstrip("/")
    name, colon, number = bare.rpartition(":")
    if bare.startswith("[") or (colon and ":" not in name and number.isdecimal()):
        address = name if colon and number.isdecimal() else bare
        raise ValueError(
            f"must be an address alone: {address.strip('[]')}, without brackets and port (that is GATEWAY_PORT)"
        )
    if bare != value:
        raise ValueError(f"must be an address alone: {bare}, without http://")
    if value == "*":
        raise ValueError("must be an address; 0.0.0.0 stands for all of IPv4, :: for all")
    if not value or not value.isprintable() or " " in value or "/" in value:
        raise ValueError(f"must be an address such as 127.0.0.1, ::1 or 0.0.0.0, not {value!r}")
    return value


def is_own_address(url: str | None, host: str | None, port: int | None) -> bool:
    """Returns whether a URL leads to what listens on ``host`` and ``port``: requests would go round in a circle."""
    if not url or not host or not port:
        return False
    parts = urlsplit(url)
    if (parts.port or {"http": 80, "https": 443}[parts.scheme]) != port:
        return False
    return parts.hostname == host or (parts.hostname in _LOOPBACK and host in _LOOPBACK | _ANY_ADDRESS)


def key(value: str) -> str | None:
    """Returns a secret that fits into a header, None where it is empty. Raises ValueError."""
    if value[:7].lower() == "bearer ":
        raise ValueError("must be the key alone, without `Bearer`")
    if value[:1] in _QUOTES or value[-1:] in _QUOTES:
        raise ValueError("must be the key alone, without quotes around it")
    if _VARIABLE.fullmatch(value):
        raise ValueError("is the name of a variable, and not its value: whoever knows the name would be an admin")
    if value and not validators.is_secret_text(value):
        raise ValueError(f"must be printable ASCII without spaces, {validators.MAX_SECRET_LENGTH} characters at most")
    return value or None


def whole_number(value: str, low: int, high: int) -> int:
    """Returns a whole number from ``low`` to ``high``. Raises ValueError."""
    number = validators.parse_whole_number(value, low, high)
    if number is None:
        raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
    return number


def port(value: str) -> int:
    """Returns the number of a port, 0 for any free one. Raises ValueError."""
    return whole_number(value, 0, 65535)


def workers(value: str) -> int:
    """Returns a number of processes. Raises ValueError."""
    return whole_number(value, 1, 256)


def header_kb(value: str) -> int:
    """Returns a size in KiB. Raises ValueError."""
    return whole_number(value, 1, 1024)


def days(value: str) -> int:
    """Returns a number of days, 0 to a hundred years. Raises ValueError."""
    return whole_number(value, 0, 36_500)


def changes(value: str) -> int:
    """Returns a number of changes a minute. Raises ValueError."""
    return whole_number(value, 1, 1_000_000)


def queue_size(value: str) -> int:
    """Returns a number of waiting requests. Raises ValueError."""
    return whole_number(value, 0, 1_000_000)


def tokens(value: str) -> int:
    """Returns a number of a model's tokens. Raises ValueError."""
    return whole_number(value, 1, 1_000_000)


def positive(value: str) -> float:
    """Returns a finite number above 0. Raises ValueError."""
    return _number(value, "must be a number above 0", lambda number: number > 0)


def not_negative(value: str) -> float:
    """Returns a finite number, 0 or above. Raises ValueError."""
    return _number(value, "must be a number, 0 or above", lambda number: number >= 0)


def _number(value: str, rule: str, is_allowed: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{rule}, not {value!r}") from None
    if not (math.isfinite(number) and is_allowed(number)):
        raise ValueError(f"{rule}, not {value!r}")
    return number


def switch(value: str) -> bool:
    """Returns True for on, true, yes and 1, False for off, false, no and 0, in any case. Raises ValueError."""
    lower = value.lower()
    if lower not in _ON | _OFF:
        raise ValueError(f"must be on or off, not {value!r}")
    return lower in _ON


def one_of(*allowed: str) -> Callable[[str], str]:
    """Returns a parser that takes one of the allowed values in any case, and raises ValueError for others."""
    check = validators.one_of(*allowed)

    def parse(value: str) -> str:
        try:
            return check(value.lower())
        except ValueError as error:
            raise ValueError(f"{error}, not {value!r}") from None

    return parse


def url(value: str) -> str | None:
    """Returns an http(s) URL without query, fragment or credentials, without a slash at its end; None where it is empty.

    Raises ValueError.
    """
    if not value:
        return None
    rule = "must be an http or https URL such as http://127.0.0.1:11434/v1"
    try:
        parts = urlsplit(value)
        bad_port = parts.port == 0
    except ValueError as error:
        raise ValueError(f"{rule}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or bad_port or not value.isascii() or " " in value:
        raise ValueError(rule)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{rule}, without a user or password: the key belongs into GATEWAY_UPSTREAM_API_KEY")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError(f"{rule}, without a query or fragment")
    return value.rstrip("/")


def aliases(value: str) -> Mapping[str, str]:
    """Returns the names that clients use with the upstream's names, from ``a=b,c=d``. Raises ValueError."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, equals, target = (part.strip() for part in pair.partition("="))
        if not (equals and name and target):
            raise ValueError(f"must look like name=upstream-name,other=upstream-other; {pair!r} does not")
        if name in found:
            raise ValueError(f"names {name!r} twice")
        found[name] = target
    return MappingProxyType(found)


def route_prefixes(value: str) -> tuple[str, ...]:
    """Returns the beginnings of paths below ``/v1/``, from names with commas between them; none for ``none``.

    Raises ValueError for a name that is no such path, and for one that administers the upstream.
    """
    found = tuple(dict.fromkeys(filter(None, (part.strip() for part in value.split(",")))))
    if found == ("none",):
        return ()
    for name in found:
        if not _ROUTE.fullmatch(name):
            raise ValueError(
                f"must be names below /v1/ such as files,batches,fine_tuning/jobs: in lower case, without a slash at the "
                f"beginning or end, and without `*` or `v1/`; {name!r} is not"
            )
        if name == "v1" or name.startswith("v1/"):
            raise ValueError(f"must be names below /v1/, without `v1/`; {name!r} is not")
        if upstream_routes.is_administrative(name):
            raise ValueError(
                f"cannot open {name!r}: it administers the upstream or its account, and is for admins alone"
            )
    return found


def networks(value: str) -> tuple[Network, ...]:
    """Returns networks, from CIDRs with commas between them. Raises ValueError."""
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"must be CIDRs such as 10.0.0.0/8,192.168.1.7/32: {error}") from None


def origins(value: str) -> frozenset[str]:
    """Returns origins in lower case, with commas between them: ``https://host[:port]``, another scheme's, or ``null``.

    Extensions, and programs with a browser inside, have schemes of their own: ``chrome-extension://…``, ``app://obsidian.md``.
    Raises ValueError.
    """
    found = [part.strip().rstrip("/") for part in value.split(",") if part.strip()]
    for origin in found:
        if origin.lower() != "null" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"must be exact origins such as https://app.example.com; {origin!r} is not")
    return frozenset(origin.lower() for origin in found)


def hosts(value: str) -> frozenset[str]:
    """Returns names of hosts in lower case, without ports, from names with commas between them. Raises ValueError."""
    found = frozenset(part.strip().lower() for part in value.split(",") if part.strip())
    for host in found:
        if not _HOST.fullmatch(host):
            raise ValueError(f"must be exact names such as gateway.test,my-laptop, without ports; {host!r} is not")
    return found


def from_toml(value: Any) -> str:
    """Returns a TOML value in the form of text that the environment would have used."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{name}={target}" for name, target in value.items())
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)
