"""Which paths are odd, and what is said of them."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.path_validation import problem_with


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/models", "/v1/files/file-abc_1.txt", "/v1/a..b", "/v1/.well-known", "/v1/models/org%2Fm",
     "/v1/engines/org%2Fm/completions", "/engines/a%2fb/completions", "/v1/caf%C3%A9", "/v1/a%20b", "/v1/fine:tune@1"],
)  # fmt: skip
def test_good(path: str) -> None:
    assert problem_with(path) is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "does not begin with a slash"),
        ("*", "does not begin with a slash"),
        ("http://x/v1", "does not begin with a slash"),
        ("/v1/é", "holds characters that must be percent-encoded"),
        ("/v1/a b", "holds characters that must be percent-encoded"),
        ("/v1/a\x00", "holds characters that must be percent-encoded"),
        ("/v1\\x", "holds a '\\\\'"),
        ("/v1;x", "holds a ';'"),
        ("/v1#x", "holds a '#'"),
        ("/v1/", "ends with a slash"),
        ("//v1", "holds an empty segment (//)"),
        ("/v1//", "holds an empty segment (//)"),
        ("/v1/./x", "holds a dot segment"),
        ("/v1/..", "holds a dot segment"),
        ("/v1/%", "holds a % that begins no escape"),
        ("/v1/%2", "holds a % that begins no escape"),
        ("/v1/%zz", "holds a % that begins no escape"),
        ("/v1/%2e%2e", "spells '.' as %2e"),
        ("/v1/%41", "spells 'A' as %41"),
        ("/v1/a%2fb", "holds an escaped '/'"),
        ("/v1/models/a%5cb", "holds an escaped '\\\\'"),
        ("/v1/models/a%252fb", "holds an escaped '%'"),
        ("/v1/a%3bb", "holds an escaped ';'"),
        ("/v1/a%3fb", "holds an escaped '?'"),
        ("/v1/a%23b", "holds an escaped '#'"),
        ("/v1/a%00b", "holds an escaped control character"),
        ("/v1/a%7fb", "holds an escaped control character"),
        ("/v1/models/a%0ab", "holds an escaped control character"),
    ],
)
def test_odd(path: str, problem: str) -> None:
    assert problem_with(path) == problem


@given(st.lists(st.text(string.ascii_letters + string.digits + "-_~", min_size=1), min_size=1))
def test_plain_segments_are_good(segments: list[str]) -> None:
    assert problem_with("/" + "/".join(segments)) is None


@given(st.text(max_size=50))
def test_a_good_path_has_one_reading(path: str) -> None:
    """Whatever is let through is not changed by the normalisation that another server may do."""
    if problem_with(path) is None:
        assert path.startswith("/")
        assert path.isascii()
        assert path == "/" or not {"", ".", ".."} & set(path.split("/")[1:])
        assert not set(path) & set("\\;#? \r\n\t\x00")
