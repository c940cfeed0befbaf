"""The one credential of a request: every form that counts, and what is refused."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.auth.credentials import HEADERS, KEY_HEADERS, Credential, Query, extract, mistake_in, split_query
from gateway.core.errors import BadRequest

KEY = "sk-made-up-for-credentials"
FORMS = [
    ("Authorization", f"Bearer {KEY}"),
    ("authorization", f"bearer {KEY}"),
    ("AUTHORIZATION", f"BEARER  {KEY} "),
    *((name, KEY) for name in KEY_HEADERS),
    *((name.upper(), f" {KEY} ") for name in KEY_HEADERS),
    ("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}"),
    ("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{KEY}, openai-beta.realtime-v1"),
]
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=512)


def of(*headers: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(headers)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_carries_a_secret(form: tuple[str, str]) -> None:
    assert extract(of(("Host", "x"), form)) == Credential(KEY)


def test_only_spaces_around_a_bearer_secret_are_not_part_of_it() -> None:
    assert extract(of(("Authorization", "Bearer  XkeyX "))) == Credential("XkeyX")
    malformed = extract(of(("Authorization", "Bearer \tkey")))
    assert malformed is not None
    assert malformed.secret is None


def test_the_query_carries_a_secret() -> None:
    assert extract(of(), [KEY]) == Credential(KEY)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "other", [FORMS[0], ("X-API-Key", KEY), ("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}")]
)
def test_two_headers_with_the_same_secret_pass(form: tuple[str, str], other: tuple[str, str]) -> None:
    if form[0].lower() != other[0].lower():
        assert extract(of(form, other)) == Credential(KEY)
    assert extract(of(form), [KEY]) == Credential(KEY)


@pytest.mark.parametrize("name", ["Authorization", *KEY_HEADERS])
def test_one_header_twice_is_ambiguous_even_with_one_secret(name: str) -> None:
    value = f"Bearer {KEY}" if name == "Authorization" else KEY
    with pytest.raises(BadRequest, match=f"header {name} was sent 2 times") as caught:
        extract(of((name, value), (name.lower(), value)))
    assert caught.value.code == "ambiguous_credentials"
    assert KEY not in caught.value.message


@pytest.mark.parametrize(
    "headers",
    [
        [("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}, openai-insecure-api-key.{KEY}")],
        [("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}")] * 2,
        [("Authorization", "Basic dTpw"), ("X-API-Key", KEY)],
        [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY + "x")],
        [("X-API-Key", KEY), ("api-key", KEY.upper())],
    ],
)
def test_two_secrets_are_ambiguous(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest, match="Send exactly one credential") as caught:
        extract(of(*headers))
    reason = (
        "the WebSocket subprotocols hold more than one key"
        if "Sec" in headers[0][0]
        else "two different credentials were sent"
    )
    assert caught.value.message == f"Send exactly one credential: {reason}."
    assert KEY not in caught.value.message


def test_a_header_and_another_secret_in_the_query_are_ambiguous() -> None:
    with pytest.raises(BadRequest):
        extract(of(FORMS[0]), ["another"])
    with pytest.raises(BadRequest):
        extract(of(), [KEY, "another"])


@pytest.mark.parametrize(
    "value",
    ["Basic dTpw", KEY, "Token abc", "Bearer a b", "Bearer\ta", "Bearer é", "Bearer a\x7f", "Bearer " + "a" * 513],
)
def test_a_malformed_credential_is_there_and_can_never_be_valid(value: str) -> None:
    found = extract(of(("Authorization", value)))
    assert found is not None
    assert (found.secret, bool(found.mistake)) == (None, True)


def test_a_secret_of_512_characters_is_well_formed() -> None:
    assert extract(of(("X-API-Key", "a" * 512))) == Credential("a" * 512)


@pytest.mark.parametrize(
    "headers", [[], [("Authorization", "")], [("Authorization", "Bearer")], [("Authorization", "Bearer ")]]
)
def test_nothing_is_no_credential(headers: list[tuple[str, str]]) -> None:
    assert extract(of(*headers)) is None


@pytest.mark.parametrize("headers", [[("X-API-Key", " ")], [("Sec-WebSocket-Protocol", "realtime")]])
def test_an_empty_header_is_no_credential(headers: list[tuple[str, str]]) -> None:
    assert extract(of(*headers)) is None


EMPTY = [("Authorization", "Bearer"), ("Authorization", ""), *((name, " ") for name in KEY_HEADERS)]


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("good", FORMS)
def test_an_empty_one_beside_a_good_one_says_nothing(empty: tuple[str, str], good: tuple[str, str]) -> None:
    """Clients that are given two ways of authentication send the unused one empty."""
    if empty[0].lower() != good[0].lower():
        assert extract(of(empty, good)) == Credential(KEY)
    assert extract(of(empty), [KEY]) == extract(of(good), [""]) == Credential(KEY)


def test_another_scheme_is_not_empty() -> None:
    with pytest.raises(BadRequest):
        extract(of(("Authorization", "Basic eDp5"), ("X-API-Key", KEY)))


@given(st.lists(st.tuples(st.sampled_from(["Authorization", *KEY_HEADERS]), SECRETS), min_size=1, max_size=4))
def test_what_is_accepted_is_the_only_secret_there_is(sent: list[tuple[str, str]]) -> None:
    """Never both accepted and ambiguous."""
    headers = of(*((name, f"Bearer {value}" if name == "Authorization" else value) for name, value in sent))
    is_ambiguous = len({name for name, _ in sent}) != len(sent) or len({value for _, value in sent}) != 1
    try:
        found = extract(headers)
    except BadRequest as error:
        assert error.code == "ambiguous_credentials"
        assert is_ambiguous
    else:
        assert not is_ambiguous
        assert found == Credential(sent[0][1])


@given(
    st.lists(st.tuples(st.sampled_from([*HEADERS, "sec-websocket-protocol"]), st.text(max_size=20)), max_size=3),
    st.text(),
)
def test_no_request_makes_the_reader_fail_otherwise(sent: list[tuple[str, str]], raw: str) -> None:
    try:
        found = extract(of(*sent), split_query(raw).tokens)
    except BadRequest:
        return
    assert found is None or found.secret is None or (found.secret.isascii() and found.secret.isprintable())


@pytest.mark.parametrize(
    ("raw", "rest", "tokens"),
    [
        ("", "", ()),
        ("a=1&b=2", "a=1&b=2", ()),
        ("token=abc", "", ("abc",)),
        ("a=1&token=abc&b=2", "a=1&b=2", ("abc",)),
        ("token=abc&token=abd", "", ("abc", "abd")),
        ("%74oken=abc", "", ("abc",)),
        ("token=a%2Bb+c", "", ("a+b+c",)),
        ("token=%ff", "", ("\ufffd",)),
        ("token", "", ("",)),
        ("tokens=abc&x=token", "tokens=abc&x=token", ()),
        ("a=%20&b", "a=%20&b", ()),
        ("&&token=abc&", "&&", ("abc",)),
        ("a=1;token=abc&b=2", "b=2", ("abc",)),
        ("a=1;TOKEN=abc;token=abd", "", ("abc", "abd")),
        ("a b;token=abc", "", ("abc",)),
        ("a=1&+token=abc&%20token%09=abd", "a=1", ("abc", "abd")),
    ],
)
def test_the_query_is_cut(raw: str, rest: str, tokens: tuple[str, ...]) -> None:
    assert split_query(raw) == Query(rest, tokens)


@given(st.lists(st.tuples(st.text("abtoken%=", max_size=6), st.text(max_size=6).map(quote)), max_size=4), SECRETS)
def test_no_secret_of_the_query_goes_on(pairs: list[tuple[str, str]], secret: str) -> None:
    marked = f"MARK{secret}"
    raw = "&".join([*(f"{name}={value}" for name, value in pairs), f"token={quote(marked)}"])
    found = split_query(raw)
    assert marked in found.tokens
    assert "MARK" not in found.rest


SPELT = "sk-abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    ("name", "value", "mistake", "shown"),
    [
        ("Authorization", SPELT, "`Bearer` is missing before the key", "sk-abcd***6789"),
        ("Authorization", "Basic dXNlcjpwYXNzd29yZA==", "`Basic` is for a name and a password", "***"),
        ("Authorization", f"Token {SPELT}", "'Token' is no scheme that is read here", "***"),
        ("Authorization", f"Bearer Bearer {SPELT}", "`Bearer` is a part of the key", "***"),
        ("X-API-Key", f"Bearer {SPELT}", "`Bearer` is a part of the key", "***"),
        ("Authorization", f"Bearer {SPELT} {SPELT}", "contains a blank", "sk-abcd***6789"),
        ("api-key", f"{SPELT[:9]}\t{SPELT}", "contains a blank, a tab or a line end", "***"),
        ("Authorization", f"Bearer {SPELT}\u200b", "contains a blank", "***"),
        ("Authorization", "Bearer “sk-abc”", "there are quotes around the key", "***"),
        ("Authorization", "Bearer sk-…", "a shortened form", "***"),
        ("Authorization", "Bearer " + "a" * 513, "longer than 512 characters", "aaaaaaa***aaaa"),
        ("Authorization", "Bearer ключ", "not printable ASCII", "***"),
    ],
)
def test_a_malformed_credential_is_told_with_its_mistake(name: str, value: str, mistake: str, shown: str) -> None:
    found = extract(of((name, value)))
    assert found is not None
    assert found.secret is None
    assert mistake in found.mistake
    assert found.shown == shown or found.shown.startswith("Bearer ***")
    assert SPELT not in str(found)


@pytest.mark.parametrize(
    ("secret", "mistake"),
    [
        ('"sk-abc"', "there are quotes around the key"),
        ("$OPENAI_API_KEY", "the name of a variable"),
        ("{{OPENAI_API_KEY}}", "the name of a variable"),
        ("YOUR_API_KEY", "a placeholder"),
        ("<token>", "a placeholder"),
        ("sk-a1b2c3d4e5f...", "a shortened form"),
        ("sk-abcd***6789", "a shortened form"),
        ("Bearer", "there is no key behind"),
    ],
)
def test_an_unknown_key_is_told_with_its_mistake(secret: str, mistake: str) -> None:
    assert mistake in mistake_in(secret)


def test_a_key_without_a_mistake_has_none() -> None:
    assert mistake_in(SPELT) == ""
