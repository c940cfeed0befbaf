"""No secret in any text that leaves the gateway."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.http.error_formats import openai_error
from gateway.observability.redaction import Redactor, cached_redactor, redact_secret, spellings
from tests.support.tokens import KEY

PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20, max_size=512)


@given(st.text(max_size=80))
def test_a_redacted_secret_shows_eleven_characters_at_most(text: str) -> None:
    assert redact_secret(text) == ("***" if len(text) < 20 else f"{text[:7]}***{text[-4:]}")


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {KEY}",
        f"BEARER   {KEY}",
        f"/v1/models?token={KEY}&x=1",
        f"?TOKEN={KEY}",
        f"api_key={KEY} apikey={KEY}",
        f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{KEY}",
        f'{{"key": "{KEY}"}}',
        f"{KEY}{KEY}",
        f"({KEY})",
        KEY,
        KEY.replace("sk-", "sk_live_"),
        KEY.replace("sk-", "pk-"),
    ],
)
def test_what_looks_like_a_secret_is_redacted_without_being_known(text: str) -> None:
    assert KEY[4:40] not in Redactor()(text)


@pytest.mark.parametrize("text", ["Authorization: Basic OmFiY2RlZmdo", "('authorization', 'basic OmFiY2RlZmdo')"])
def test_basic_credentials_are_redacted(text: str) -> None:
    assert "OmFiY2Rl" not in Redactor()(text)


@pytest.mark.parametrize("text", ["Bearer eyJhbGciOi.eyJzdWIi.c2ln", "?token=plain-word-secret", "x?api-key=abcd&y"])
def test_a_foreign_secret_is_told_by_its_place(text: str) -> None:
    redacted = Redactor()(text)
    assert "***" in redacted
    assert redacted != text


@pytest.mark.parametrize(
    "text",
    ["", "a token for the bearer", "sk-ip this", "ask-me-anything", "the api-key is missing", "basic understanding"],
)
def test_prose_stays_as_it_is(text: str) -> None:
    assert Redactor()(text) == text


@given(PRINTABLE, st.text(max_size=20), st.text(max_size=20))
def test_a_configured_secret_is_redacted_whatever_it_looks_like(known: str, before: str, after: str) -> None:
    assert known not in Redactor([known])(f"{before} {known} {after}")


def test_an_error_that_quotes_a_secret_stays_json() -> None:
    error = BadRequest(f"Unknown field 'token=abcd\"{KEY}\\'.", param=f'token=ab"\\{KEY}')
    told = json.loads(openai_error(error, Redactor()))["error"]
    assert KEY[14:] not in told["message"] + told["param"]
    assert (told["type"], told["code"]) == ("invalid_request_error", None)


def test_every_spelling_of_a_secret_is_known_the_longest_first() -> None:
    found = spellings('a"b\\c/d é')
    assert set(found) == {
        'a"b\\c/d é', 'a\\"b\\\\c/d é', 'a"b\\\\c/d é', 'a\\\\"b\\\\\\\\c/d é', "a%22b%5Cc%2Fd%20%C3%A9", "a%22b%5Cc/d%20%C3%A9"
    }  # fmt: skip
    assert [len(form) for form in found] == sorted(map(len, found), reverse=True)


def test_a_cached_redactor_redacts_once_and_cuts_afterwards() -> None:
    asked: list[str] = []
    redactor = Redactor()

    def count(text: str) -> str:
        asked.append(text)
        return redactor(text)

    redact = cached_redactor(count, 20)
    assert redact("gpt-4o") == redact("gpt-4o") == "gpt-4o"
    assert asked == ["gpt-4o"]
    assert redact("x" * 21) == "x" * 20
    assert redact(f"model {KEY}") == f"model {redact_secret(KEY)}"[:20]
    assert KEY[7:14] not in redact(f"model-of-some-{KEY}"), "half a secret would not be recognised"


def test_a_name_that_cannot_be_encoded_is_escaped() -> None:
    assert cached_redactor(Redactor(), 100)("half \ud800") == "half \\ud800"
