"""What an upstream gets to see of a client's request: an allowed header, and never a credential."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import credentials
from gateway.providers.request_headers import forwarded_headers, scope_idempotency_key
from tests.support.gateway import KEY
from tests.support.upstream import always, answer
from tests.support.wire import gateway_before, post, talk

CREDENTIAL_HEADERS = [
    *sorted(credentials.HEADERS), "Sec-WebSocket-Protocol", "Cookie", "Proxy-Authorization", "X-Amz-Security-Token",
    "X-Auth-Token", "OpenAI-Organization", "OpenAI-Project", "X-Anthropic-Key", "Forwarded", "X-Forwarded-For", "Host",
]  # fmt: skip
WITH_KEY = [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY), ("x-goog-api-key", KEY), ("api-key", KEY),
            ("API-Token", KEY), ("X-API-Token", KEY), ("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}"),
            ("Proxy-Authorization", f"Basic {KEY}"), ("Cookie", f"session={KEY}"), ("X-Made-Up-Key", KEY)]  # fmt: skip


@pytest.mark.parametrize("name", ["Accept", "User-Agent", "X-Stainless-Lang", "anthropic-version", "TraceParent"])
def test_allowed_headers_are_forwarded_under_the_name_that_the_client_used(name: str) -> None:
    assert forwarded_headers({name: "value"}, None) == {name: "value"}


def test_the_content_type_is_the_gateways_in_every_spelling_of_the_header() -> None:
    given = {"content-type": "text/plain", "CONTENT-TYPE": "application/json; charset=utf-7"}
    assert forwarded_headers(given, "application/json") == {"Content-Type": "application/json"}
    assert forwarded_headers(given, None) == {}


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS)
def test_credential_headers_are_not_forwarded(name: str) -> None:
    assert forwarded_headers({name: KEY, name.upper(): KEY, "Accept": "x"}, None) == {"Accept": "x"}


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key"])
def test_idempotency_keys_of_two_tokens_never_meet(name: str) -> None:
    ann, again, bob = (
        scope_idempotency_key({name: "k1", "Accept": "x"}, token_id) for token_id in ("tok_1", "tok_1", "tok_2")
    )
    assert ann == again
    assert ann["Accept"] == "x"
    other = scope_idempotency_key({name: "k2"}, "tok_1")
    assert len({"k1", ann[name], bob[name], other[name]}) == 4
    long = scope_idempotency_key({name: "k" * 9000}, "tok_1")
    assert len(ann[name]) == len(long[name]) == 64


@given(st.text("abcdefgkeyACKEPTtokn-_", max_size=20))
def test_a_header_that_is_not_on_the_list_is_not_forwarded(name: str) -> None:
    assert forwarded_headers({f"x-{name}": KEY}, None) == {}


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/v1/chat/completions?token={}&beta=true", "/v1/chat/completions?beta=true"),
        ("/v1/moderations?%74oken={}", "/v1/moderations"),
        ("/v1/engines/m/embeddings?token={}", "/v1/embeddings"),
    ],
)
async def test_no_byte_of_a_clients_key_reaches_the_upstream(tmp_path: Path, target: str, sent: str) -> None:
    async with gateway_before(always(answer(b'{"choices":[]}')), tmp_path) as (upstream, gateway):
        reply = await talk(gateway.port, post(target.format(KEY), headers=WITH_KEY))
        assert reply.status == 200, reply.body
    received = upstream.requests[-1]
    assert received.target == sent
    assert KEY.encode() not in received.raw_head + received.body
