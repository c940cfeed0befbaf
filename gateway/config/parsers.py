"""Texts to values: one function a kind of setting. Each raises ValueError with a sentence that says the mend."""

import math
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from gateway.core import validators

Network = IPv4Network | IPv6Network

_ON = frozenset({"on", "true", "yes", "1"})
_OFF = frozenset({"off", "false", "no", "0"})


def text(value: str) -> str:
    return value


def path(value: str) -> Path:
    if "\0" in value:
        raise ValueError("holds a NUL")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value!r} names no folder: {error}") from None


def key(value: str) -> str | None:
    """A secret that fits into a header. Empty is None."""
    if value and not validators.is_secret_text(value):
        raise ValueError(f"must be printable ASCII without spaces, {validators.MAX_SECRET_LENGTH} characters at most")
    return value or None


def whole_number(value: str, low: int, high: int) -> int:
    number = validators.parse_whole_number(value, low, high)
    if number is None:
        raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
    return number


def port(value: str) -> int:
    return whole_number(value, 0, 65535)


def workers(value: str) -> int:
    return whole_number(value, 1, 256)


def days(value: str) -> int:
    return whole_number(value, 0, 36_500)


def queue_size(value: str) -> int:
    return whole_number(value, 0, 1_000_000)


def tokens(value: str) -> int:
    return whole_number(value, 1, 1_000_000)


def positive(value: str) -> float:
    return _number(value, "must be a number above 0", lambda number: number > 0)


def not_negative(value: str) -> float:
    return _number(value, "must be a number, 0 or above", lambda number: number >= 0)


def _number(value: str, rule: str, holds: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{rule}, not {value!r}") from None
    if not (math.isfinite(number) and holds(number)):
        raise ValueError(f"{rule}, not {value!r}")
    return number


def switch(value: str) -> bool:
    word = value.lower()
    if word not in _ON | _OFF:
        raise ValueError(f"must be on or off, not {value!r}")
    return word in _ON


def one_of(*allowed: str) -> Callable[[str], str]:
    check = validators.one_of(*allowed)

    def parse(value: str) -> str:
        try:
            return check(value.lower())
        except ValueError as error:
            raise ValueError(f"{error}, not {value!r}") from None

    return parse


def url(value: str) -> str | None:
    """An http(s) URL without query, fragment or credentials; no slash at its end. Empty is None."""
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
    """``a=b,c=d``: the name clients use = the name upstream."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, equals, target = (part.strip() for part in pair.partition("="))
        if not (equals and name and target):
            raise ValueError(f"must look like name=upstream-name,other=upstream-other; {pair!r} does not")
        if name in found:
            raise ValueError(f"names {name!r} twice")
        found[name] = target
    return MappingProxyType(found)


def networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"must be CIDRs such as 10.0.0.0/8,192.168.1.7/32: {error}") from None


def origins(value: str) -> frozenset[str]:
    """``https://host[:port]``, exactly as browsers send it."""
    found = [part.strip().rstrip("/") for part in value.split(",") if part.strip()]
    for origin in found:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or "*" in origin:
            raise ValueError(f"must be exact origins such as https://app.example.com; {origin!r} is not")
    return frozenset(origin.lower() for origin in found)


def from_toml(value: Any) -> str:
    """A TOML value in the text form that the environment would have used."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{name}={target}" for name, target in value.items())
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)
