"""The token file that the cases begin with. Its secrets, ids and times are the same in every run."""

import hashlib
import json
from typing import Any

ADMIN = "sk-transcript-admin-secret-00001"
MEMBER = "sk-transcript-member-secret-00002"
SERVICE = "sk-transcript-service-secret-00003"
EXPIRED = "sk-transcript-expired-secret-00004"
REVOKED = "sk-transcript-revoked-secret-00005"
CHILD = "sk-transcript-child-secret-00006"
MODELS = "sk-transcript-models-secret-00007"
RPM = "sk-transcript-rpm-secret-00008"
BUDGET = "sk-transcript-budget-secret-00009"
PARALLEL = "sk-transcript-parallel-secret-00010"
TPM = "sk-transcript-tpm-secret-00011"
TEST = "sk_test_transcript-secret-00012"
ROTATED = "sk-transcript-rotated-secret-00013"
ROTATED_OLD = "sk-transcript-replaced-secret-00014"
ROTATED_ENDED = "sk-transcript-ended-secret-00015"
STRANGER = "sk-transcript-stranger-secret-00016"
ORPHAN = "sk-transcript-orphan-secret-00017"
SHORT_LIVED = "sk-transcript-shortlived-secret-00019"
MODEL_LIMIT = "sk-transcript-modellimit-secret-00018"
ENVIRONMENT = "sk-transcript-environment-key-00020"
UPSTREAM = "sk-transcript-upstream-key-00021"
LONG_AGO, FAR_AHEAD = "2020-01-31T10:30:00Z", "2099-01-31T10:30:00Z"


def token_id(name: str) -> str:
    """The id of the fixture of that name."""
    return f"tok_Fixture{name.capitalize():0<13}"


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def token(name: str, secret: str, **fields: Any) -> dict[str, Any]:
    """A record as the token file has it."""
    return {
        "id": token_id(name),
        "name": name,
        "prefix": secret[:14],
        "hash": sha256(secret),
        "owner": None,
        "role": "member",
        "parent_id": None,
        "created_at": LONG_AGO,
        "expires_at": None,
        "revoked_at": None,
        "last_used": None,
        "usage_count": 0,
        "models": None,
        "limits": None,
        "metadata": {},
        **fields,
    }


def _replaced(secret: str, valid_until: str) -> dict[str, Any]:
    return {
        "prefix": secret[:14],
        "hash": sha256(secret),
        "rotated_at": "2020-02-01T00:00:00Z",
        "valid_until": valid_until,
        "revoked_at": None,
        "last_used": None,
        "last_used_from": None,
        "usage_count": 0,
    }


def token_file() -> bytes:
    """One token for each kind of right, state and limit."""
    replaced = [_replaced(ROTATED_ENDED, "2020-02-02T00:00:00Z"), _replaced(ROTATED_OLD, FAR_AHEAD)]
    tokens = [
        token("admin", ADMIN, role="admin"),
        token("member", MEMBER, owner="ann@example.com", metadata={"team": "search"}),
        token("service", SERVICE, role="service"),
        token("expired", EXPIRED, expires_at="2021-01-31T10:30:00Z"),
        token("revoked", REVOKED, revoked_at="2021-01-31T10:30:00Z"),
        token("child", CHILD, parent_id=token_id("member"), owner="ann@example.com", expires_at=FAR_AHEAD),
        token("models", MODELS, models=["echo", "gpt-4o*"]),
        token("rpm", RPM, limits={"rpm": 1}),
        token("budget", BUDGET, limits={"budget": "0.0001"}),
        token("parallel", PARALLEL, limits={"max_parallel": 1}),
        token("tpm", TPM, limits={"tpm": 30}),
        token("test", TEST),
        token("rotated", ROTATED, previous_secrets=replaced),
        token("stranger", STRANGER, owner="bob@example.com"),
        token("orphan", ORPHAN, parent_id=token_id("revoked")),
        token("shortlived", SHORT_LIVED),
        token("modellimit", MODEL_LIMIT, limits={"models": {"paid*": {"rpm": 1}}, "budget": "5/month"}),
    ]
    return json.dumps({"version": 1, "note": "kept as it is", "tokens": tokens}, indent=2).encode() + b"\n"
