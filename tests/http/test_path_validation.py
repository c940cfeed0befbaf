"""Which paths are odd, and what is said of them."""

import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.path_validation import origin_form, problem_with, problem_with_passed


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
        ("/v1/models/%2f", "holds an empty segment (//)"),
        ("/v1/models/%2Fa", "holds an empty segment (//)"),
        ("/v1/models/a%2F", "ends with a slash"),
        ("/v1/models/a%2F%2Fb", "holds an empty segment (//)"),
        ("/v1/models/..%2Fa", "holds a dot segment"),
        ("/v1/models/a%2F.", "holds a dot segment"),
        ("/v1/engines/x%2F..%2F..%2Fadmin%2Fkeys", "holds a dot segment"),
        ("/v1/engines/..%2f..%2fadmin/completions", "holds a dot segment"),
        ("/engines/a%2F..%2Fb/completions", "holds a dot segment"),
        ("/openai/deployments/a%2f..%2fb/completions", "holds a dot segment"),
        ("/v1/engines/x%252F..%252Fadmin", "holds an escaped '%'"),
        ("/v1/models/%2e%2e", "spells '.' as %2e"),
        ("/v1/models/a%2f%2e%2e%2fb", "spells '.' as %2e"),
        ("/v1/Models/a%2Fb", "holds an escaped '/'"),
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
        assert unquote(unquote(path)) == unquote(path)
        assert path == "/" or not {"", ".", ".."} & set(unquote(path).split("/")[1:])


@given(st.lists(st.sampled_from(["a", ".", "/", "%2f", "%2F", "%2e", "%252f", "..", "%"]), max_size=8))
def test_escaped_slashes_hide_no_dot_segment(pieces: list[str]) -> None:
    for prefix in ("/v1/models/", "/v1/engines/", "/engines/", "/openai/deployments/"):
        path = prefix + "".join(pieces)
        if problem_with(path) is None:
            assert not {"", ".", ".."} & set(unquote(path).split("/")[1:])


def test_a_path_that_is_passed_on_has_no_escaped_slash() -> None:
    assert problem_with_passed("/v1/files/a%20b") is None
    for path in ("/v1/engines/org%2Fm", "/v1/engines/org%2fm"):
        assert problem_with(path) is None
        assert problem_with_passed(path) == "holds an escaped '/'"


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://gateway:8000/v1/models?a=b", "gateway:8000", "/v1/models?a=b"),
        ("HTTP://Gateway:8000/v1", "gateway:8000", "/v1"),
        ("https://[::1]:8/healthz", "[::1]:8", "/healthz"),
        ("http://gateway", "gateway", "/"),
        ("http://gateway?a", "gateway", "/?a"),
        ("http://gateway//v1", "gateway", "//v1"),
        ("http://evil.example/v1/models", "gateway", None),
        ("http://user@gateway/v1", "gateway", None),
        ("http://gateway:8000/v1", "gateway", None),
        ("http://gateway\\@evil/v1", "gateway", None),
        ("ftp://gateway/v1", "gateway", None),
        ("http:///v1", "", None),
        ("gateway:80", "gateway:80", None),
        ("*", "gateway", None),
    ],
)
def test_an_absolute_target_is_for_the_host_that_it_names(target: str, host: str, path: str | None) -> None:
    assert origin_form(target, host) == (target if path is None else path)
