"""Reads the tokens that ``import`` takes: our own token files, and dumps of LiteLLM and one-api. Pure.

What restricts a key elsewhere and has no equivalent here is refused: the imported token would be allowed more.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Any

from gateway.core.clock import to_iso
from gateway.core.validators import is_secret_text, is_whole_number
from gateway.tokens import secret, validation
from gateway.tokens.models import TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores import json_format

FORMS = (
    "read are: a token file of this gateway or of FreeGPT; LiteLLM's `GET /key/list?return_full_object=true`, "
    '{"keys": [{"token", …}]}; the list of tokens of one-api and new-api, {"data": [{"key", …}]}; '
    "and the lists in these two by themselves"
)
_HASH = re.compile(r"[0-9a-f]{64}")
_WINDOWS = {"1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month"}
_LITELLM_UNKNOWN = (
    "allowed_routes", "allowed_cache_controls", "model_max_budget", "model_rpm_limit", "model_tpm_limit",
    "soft_budget_cooldown", "object_permission", "allowed_vector_store_indexes",
)  # fmt: skip
_ONE_API_UNKNOWN = ("subnet", "allow_ips")
_QUOTA_OF_A_DOLLAR = 500_000
_ENABLED = 1


def decode(data: bytes, now: float) -> tuple[TokenRecord, ...]:
    """Returns the tokens of a file in any of the forms. ``now`` is when keys end that were blocked. Raises TokensDamaged."""
    content = json_format.parse(data)
    if _is_token_file(content):
        return json_format.decode(data).tokens
    items = _items(content)
    if not items or not all(isinstance(item, dict) for item in items):
        raise TokensDamaged(f"unknown form; {FORMS}")
    records = tuple(_record(f"entry {number}", item, int(now)) for number, item in enumerate(items, 1))
    json_format.require_unique(records)
    return records


def _is_token_file(content: Any) -> bool:
    """Returns whether this has the form of a token file: ours, or FreeGPT's, in which every value is an object."""
    if not isinstance(content, dict) or isinstance(content.get("data"), dict):
        return False
    return "tokens" in content or "version" in content or all(isinstance(one, dict) for one in content.values())


def _items(content: Any) -> Sequence[Any] | None:
    """Returns the list in a dump: under ``keys``, under ``data``, or in the page that ``data`` is."""
    for _ in range(3):
        if isinstance(content, list):
            return content
        if not isinstance(content, dict):
            return None
        content = next((content[name] for name in ("keys", "data", "items") if name in content), None)
    return None


def _record(place: str, item: Mapping[str, Any], now: int) -> TokenRecord:
    try:
        if "token" in item:
            return _of_litellm(item, now)
        if "key" in item:
            return _of_one_api(item, now)
    except ValueError as error:
        raise TokensDamaged(f"{place}: {error}") from None
    raise TokensDamaged(f"{place}: has neither `token` nor `key`; {FORMS}")


def _of_litellm(item: Mapping[str, Any], now: int) -> TokenRecord:
    _refuse_restrictions(item, _LITELLM_UNKNOWN)
    token = item["token"]
    if not isinstance(token, str) or not is_secret_text(token):
        raise ValueError("`token` must be a key or its SHA-256")
    is_hash = _HASH.fullmatch(token) is not None
    models = item.get("models") or None
    if models == ["all-proxy-models"]:
        models = None
    elif isinstance(models, list) and any(model in ("all-team-models", "no-default-models") for model in models):
        raise ValueError("`models` refers to a team; list the models to import the key")
    limits = {
        "rpm": item.get("rpm_limit"),
        "tpm": item.get("tpm_limit"),
        "max_parallel": item.get("max_parallel_requests"),
        "budget": _litellm_budget(item),
    }
    name = item.get("key_alias") or item.get("key_name")
    owner = item.get("user_email") or item.get("user_id")
    return _build(
        token if is_hash else secret.digest(token),
        _shown(item.get("key_name") or token[:8]) if is_hash else secret.display_prefix(token),
        name=name or f"litellm {token[:8] if is_hash else secret.display_prefix(token)}",
        owner=owner if isinstance(owner, str) and "@" in owner else None,
        created_at=item.get("created_at") or to_iso(now),
        expires_at=item.get("expires"),
        revoked_at=to_iso(now) if item.get("blocked") else None,
        models=models,
        limits=limits,
    )


def _litellm_budget(item: Mapping[str, Any]) -> str | None:
    amount, duration = item.get("max_budget"), item.get("budget_duration")
    if amount is None:
        return None
    if duration is None:
        return _dollars(_decimal(amount) - _decimal(item.get("spend") or 0))
    if duration not in _WINDOWS:
        raise ValueError(f"`budget_duration` {str(duration)[:20]!r} has no equivalent; it must be 1d, 7d or 30d")
    return f"{_dollars(_decimal(amount))}/{_WINDOWS[duration]}"


def _of_one_api(item: Mapping[str, Any], now: int) -> TokenRecord:
    _refuse_restrictions(item, _ONE_API_UNKNOWN)
    key = item["key"]
    if not isinstance(key, str) or not is_secret_text(key) or "***" in key:
        raise ValueError("`key` must be a whole key, and not masked")
    token = (
        key if key.startswith("sk-") else f"sk-{key}"
    )  # clients send it with the prefix, the database has it without
    quota, is_limited = item.get("remain_quota"), not item.get("unlimited_quota")
    is_used_up = is_limited and quota is not None and _decimal(quota) <= 0
    models = item.get("models") or (item.get("model_limits") if item.get("model_limits_enabled") else None)
    return _build(
        secret.digest(token),
        secret.display_prefix(token),
        name=item.get("name") or f"one-api {secret.display_prefix(token)}",
        created_at=_epoch(item.get("created_time")) or to_iso(now),
        last_used=_epoch(item.get("accessed_time")),
        expires_at=_epoch(item.get("expired_time")),
        revoked_at=None if item.get("status", _ENABLED) == _ENABLED and not is_used_up else to_iso(now),
        models=models.split(",") if isinstance(models, str) else models,
        limits={"budget": _dollars(_decimal(quota) / _QUOTA_OF_A_DOLLAR)}
        if is_limited and quota is not None and not is_used_up
        else {},
    )


def _build(digest: str, prefix: str, **fields: Any) -> TokenRecord:
    """Returns a record, each field read like those of a token file. Raises ValueError."""
    fields["limits"] = {name: value for name, value in fields["limits"].items() if value is not None}
    read = {name: validation.READERS[name](value) for name, value in fields.items()}
    return TokenRecord(id=f"tok_{digest[:16]}", prefix=prefix, hash=digest, **read)


def _refuse_restrictions(item: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if item.get(name):
            raise ValueError(
                f"`{name}` restricts the key, and has no equivalent; take it out to import the key without"
            )


def _shown(text: Any) -> str:
    return text[: secret.DISPLAY_LENGTH] if isinstance(text, str) and text.isprintable() and text else "sk-"


def _epoch(value: Any) -> str | None:
    """Returns a time in the form of a token file; None for -1 and 0, which mean never."""
    if value is None or value in (-1, 0):
        return None
    if not is_whole_number(value, 1, 253_402_300_799):
        raise ValueError("its times must be seconds since 1970")
    return datetime.fromtimestamp(value, UTC).isoformat()


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("amounts of money and quota must be numbers")
    return Decimal(str(value))


def _dollars(amount: Decimal) -> str:
    try:
        rounded = max(amount, Decimal("0.000001")).quantize(Decimal("0.000001"), ROUND_DOWN)
    except InvalidOperation:
        raise ValueError("an amount of money is too large") from None
    return f"{rounded:f}".rstrip("0").rstrip(".")
