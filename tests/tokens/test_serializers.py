"""What is shown of a token: all but its hash, and of a bad secret nothing but why."""

import pytest

from gateway.tokens.changes import CreatedToken
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import SecretMatch, TokenRecord
from gateway.tokens.serializers import to_created_json, to_public_json, to_usage_json, to_validity_json
from tests.support.tokens import KEY, NOW, record
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


def test_the_secret_is_shown_at_creation_alone() -> None:
    token = record(KEY)
    shown = to_created_json(view(token), CreatedToken(token, KEY), NOW)
    assert shown == {"token": KEY, **to_public_json(view(token), token, NOW)}


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
