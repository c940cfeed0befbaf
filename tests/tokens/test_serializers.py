"""What is shown of a token: all but its hash, and of a bad secret nothing but why."""

import msgspec
import pytest

from gateway.tokens.changes import CreatedToken
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import PreviousSecret, SecretMatch, TokenRecord
from gateway.tokens.serializers import to_created_json, to_public_json, to_usage_json, to_validity_json
from tests.support.tokens import KEY, LIVE_KEY, NOW, record
from tests.tokens.test_changes import rotate

FIELDS = """
id name prefix status owner role parent_id created_at expires_at revoked_at last_used usage_count models limits metadata
previous_secrets
"""


def view(*tokens: TokenRecord) -> TokenHierarchy:
    return TokenHierarchy(tokens)


def test_everything_is_shown_but_the_hash() -> None:
    token = record(KEY, expires_at="2027-01-15T08:00:00Z", models=["a"], note="unknown fields are nobody's business")
    shown = to_public_json(view(token), token, NOW)
    assert list(shown) == FIELDS.split()
    assert token.hash not in str(shown)
    assert (shown["status"], shown["expires_at"]) == ("expired", "2027-01-15T08:00:00Z")


def test_a_replaced_secret_is_shown_with_its_times_and_uses() -> None:
    old = PreviousSecret(
        prefix="sk-old", hash="0" * 64, rotated_at=NOW - 60, valid_until=NOW + 60, revoked_at=NOW - 1,
        last_used=NOW - 2, last_used_from="192.0.2.7", usage_count=3,
    )  # fmt: skip
    token = msgspec.structs.replace(record(KEY), previous_secrets=(old,))
    shown = to_public_json(view(token), token, NOW)
    assert shown["status"] == "active"
    assert shown["previous_secrets"] == [
        {
            "prefix": "sk-old",
            "status": "revoked",
            "rotated_at": "2027-01-15T07:59:00Z",
            "valid_until": "2027-01-15T08:01:00Z",
            "revoked_at": "2027-01-15T07:59:59Z",
            "last_used": "2027-01-15T07:59:58Z",
            "last_used_from": "192.0.2.7",
            "usage_count": 3,
        }
    ]


def test_the_secret_is_shown_at_creation_alone() -> None:
    token = record(KEY, expires_at="2027-01-15T08:00:01Z")
    shown = to_created_json(view(token), CreatedToken(token, KEY), NOW)
    assert shown == {"token": KEY, **to_public_json(view(token), token, NOW)}
    assert shown["status"] == "active"


def test_a_good_secret_is_told_about() -> None:
    assert to_validity_json(view(record(KEY)), SecretMatch(record(KEY), None), NOW) == {
        "valid": True,
        "name": "application",
        "created_at": "2025-11-26T10:30:00Z",
        "last_used": None,
        "usage_count": 0,
        "status": "active",
        "expires_at": None,
    }


def test_a_good_secret_ends_with_the_first_of_its_tokens_parents() -> None:
    parent = record(LIVE_KEY, id="tok_p", expires_at="2027-01-15T08:00:05Z")
    child = record(KEY, parent_id="tok_p", expires_at="2027-01-15T08:00:09Z")
    found = to_validity_json(view(parent, child), SecretMatch(child, None), NOW)
    assert (found["status"], found["expires_at"]) == ("active", "2027-01-15T08:00:05Z")
    found = to_validity_json(view(parent), SecretMatch(parent, None), NOW)
    assert found["expires_at"] == "2027-01-15T08:00:05Z"


@pytest.mark.parametrize("field", ["revoked_at", "expires_at"])
def test_of_a_bad_secret_nothing_is_told_but_why(field: str) -> None:
    status = {"revoked_at": "revoked", "expires_at": "expired"}[field]
    token = record(KEY, **{field: "2026-01-01T00:00:00Z"})
    assert to_validity_json(view(token), SecretMatch(token, None), NOW) == {"valid": False, "status": status}
    assert to_validity_json(view(), None, NOW) == {"valid": False, "status": "unknown"}


def test_usage_shows_replaced_secrets_without_their_hashes() -> None:
    current = rotate(record(KEY), 60)
    usage = to_usage_json(TokenHierarchy([current]), current, NOW)
    assert list(usage) == ["id", "name", "prefix", "status", "usage_count", "last_used", "previous_secrets"]
    assert usage["previous_secrets"][0]["status"] == "active"
    assert current.previous_secrets[0].hash not in str(usage)
