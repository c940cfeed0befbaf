"""The parsers of settings: one for each kind of value."""

from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.config import parsers

PARSED: list[tuple[Callable[[str], Any], str, Any]] = [
    (parsers.text, "any text", "any text"),
    (parsers.path, "/x/y", Path("/x/y")),
    (parsers.path, "~/x", Path.home() / "x"),
    (parsers.key, "", None),
    (parsers.key, "sk-a!~", "sk-a!~"),
    (parsers.key, "a" * 512, "a" * 512),
    (parsers.port, "0", 0),
    (parsers.port, "65535", 65535),
    (parsers.workers, "256", 256),
    (parsers.days, "36500", 36_500),
    (parsers.queue_size, "1000000", 1_000_000),
    (parsers.tokens, "1", 1),
    (parsers.positive, "1e-3", 0.001),
    (parsers.not_negative, "0", 0),
    (parsers.switch, "On", True),
    (parsers.switch, "1", True),
    (parsers.switch, "NO", False),
    (parsers.one_of("a", "b"), "B", "b"),
    (parsers.url, "", None),
    (parsers.url, "http://x/v1//", "http://x/v1"),
    (parsers.aliases, "", {}),
    (parsers.aliases, "a=b,c=d=e", {"a": "b", "c": "d=e"}),
    (parsers.networks, "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    (parsers.origins, "https://A.example/", {"https://a.example"}),
    (parsers.origins, "http://[::1]:5173, http://localhost:5173", {"http://[::1]:5173", "http://localhost:5173"}),
    (parsers.origins, "null,app://obsidian.md", {"null", "app://obsidian.md"}),
    (
        parsers.origins,
        "chrome-extension://abcdefghij, tauri://localhost",
        {"chrome-extension://abcdefghij", "tauri://localhost"},
    ),
    (parsers.origins, "capacitor://localhost,vscode-webview://x", {"capacitor://localhost", "vscode-webview://x"}),
]


@pytest.mark.parametrize(("parse", "text", "value"), PARSED)
def test_a_text_becomes_a_value(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


REFUSED: list[tuple[Callable[[str], Any], str, str]] = [
    (parsers.path, "a\0b", "holds a NUL"),
    (parsers.path, "~nobody-of-this-name/x", "names no folder"),
    (parsers.key, "two words", "must be printable ASCII without spaces, 512 characters at most"),
    (parsers.key, "a" * 513, "must be printable ASCII without spaces, 512 characters at most"),
    (parsers.port, "65536", "must be a whole number from 0 to 65535, not '65536'"),
    (parsers.port, "", "must be a whole number from 0 to 65535, not ''"),
    (parsers.workers, "257", "must be a whole number from 1 to 256, not '257'"),
    (parsers.header_kb, "1025", "must be a whole number from 1 to 1024, not '1025'"),
    (parsers.days, "36501", "from 0 to 36500"),
    (parsers.queue_size, "1000001", "from 0 to 1000000"),
    (parsers.tokens, "0", "from 1 to 1000000"),
    (parsers.positive, "0", "must be a number above 0, not '0'"),
    (parsers.positive, "inf", "must be a number above 0, not 'inf'"),
    (parsers.positive, "x", "must be a number above 0, not 'x'"),
    (parsers.not_negative, "nan", "must be a number, 0 or above, not 'nan'"),
    (parsers.not_negative, "-0.1", "must be a number, 0 or above, not '-0.1'"),
    (parsers.switch, "maybe", "must be on or off, not 'maybe'"),
    (parsers.one_of("a", "b"), "C", "must be one of a, b, not 'C'"),
    (parsers.url, "http://x:0", "must be an http or https URL"),
    (parsers.url, "http://x y", "must be an http or https URL"),
    (parsers.url, "http://é", "must be an http or https URL"),
    (parsers.url, "http://user@x", "without a user or password"),
    (parsers.url, "http://x?", "without a query or fragment"),
    (parsers.aliases, "=b", "'=b' does not"),
    (parsers.aliases, "a=b,a=c", "names 'a' twice"),
    (parsers.networks, "10.0.0.1/8", "must be CIDRs"),
    (parsers.origins, "a.example", "must be exact origins"),
    (parsers.origins, "https://a.example?x", "must be exact origins"),
    (parsers.origins, "https://*.example", "must be exact origins"),
    (parsers.origins, "*", "must be exact origins"),
    (parsers.origins, "https://user@a.example", "must be exact origins"),
    (parsers.origins, "https://a.example/path", "must be exact origins"),
    (parsers.origins, "app://", "must be exact origins"),
]


@pytest.mark.parametrize(("parse", "text", "rule"), REFUSED)
def test_any_other_text_is_refused_with_the_rule(parse: Callable[[str], Any], text: str, rule: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "on"),
        (False, "off"),
        (7, "7"),
        (Decimal("0.1"), "0.1"),
        ("x", "x"),
        (["a", 1], "a,1"),
        ({"a": "b"}, "a=b"),
    ],
)
def test_a_toml_value_takes_the_form_of_the_environment(value: object, text: str) -> None:
    assert parsers.from_toml(value) == text
