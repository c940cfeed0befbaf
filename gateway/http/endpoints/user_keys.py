"""Serves ``/api/user``: one key for each e-mail address. The JSON is that of an API store, in camelCase."""

from typing import Any

import msgspec

from gateway.admin.user_keys import UserKeys
from gateway.core.clock import to_iso
from gateway.core.money import format_usd
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.requester import requester_of
from gateway.http.response import Response, json_response
from gateway.inference.admission import Admission
from gateway.limits.matching import LimitChain
from gateway.limits.models import LimitKind
from gateway.tokens import validation
from gateway.tokens.models import TokenRecord

DEFAULT_NAME = "API key"


class UserKeyEndpoints:
    """Serves the routes below ``/api/user``."""

    def __init__(self, keys: UserKeys, admission: Admission) -> None:
        self._keys = keys
        self._admission = admission

    async def create(self, ctx: RequestContext) -> Response:
        form = await params.parse_json_params(ctx, _CREATE, required=("email",))
        created = await self._keys.replace(requester_of(ctx), form["email"], form.get("key_name", DEFAULT_NAME))
        answer = {
            "success": True,
            "message": "API key generated successfully",
            "key": created.secret,
            "keyPrefix": created.record.prefix,
        }
        return json_response(200, answer)

    async def read(self, ctx: RequestContext) -> Response:
        return await self._preference_response(ctx, "keyPreference")

    async def usage(self, ctx: RequestContext) -> Response:
        return await self._preference_response(ctx, "usage")

    async def revoke(self, ctx: RequestContext) -> Response:
        await params.parse_json_params(ctx, {})
        await self._keys.revoke(requester_of(ctx), ctx.params["email"])
        return json_response(200, {"success": True, "message": "API key revoked successfully"})

    async def _preference_response(self, ctx: RequestContext, name: str) -> Response:
        params.parse_query(ctx, {})
        record = await self._keys.current(ctx.caller, ctx.params["email"])
        balance = 0 if record is None else await self._balance(record)
        return json_response(200, {"success": True, name: _preference(record, balance)})

    async def _balance(self, record: TokenRecord) -> int:
        """Returns what remains of the tightest budget, in micro-dollars, or 0 without a budget."""
        sets = () if record.limits is None else ((record.id, record.limits),)
        usage = await self._admission.current_usage(LimitChain(sets))
        remaining = [
            limit.remaining(counter)
            for limit, counter in usage
            if limit.kind is LimitKind.BUDGET and limit.model is None
        ]
        return max(0, min(remaining, default=0))


def _preference(record: TokenRecord | None, balance: int) -> dict[str, Any]:
    return {
        "hasKey": record is not None,
        "generatedAt": to_iso(_generated_at(record)) if record else None,
        "lastUsed": to_iso(record.last_used) if record else None,
        "usageCount": record.usage_count if record else 0,
        "keyName": record.name if record else None,
        "keyPrefix": record.prefix if record else None,
        "balance": msgspec.Raw(format_usd(balance).encode()),
    }


def _generated_at(record: TokenRecord) -> int:
    """Returns when the present secret was made, in seconds since the epoch."""
    return record.previous_secrets[-1].rotated_at if record.previous_secrets else record.created_at


def _email(value: Any) -> str:
    rule = "must be an e-mail address"
    try:
        found = validation.owner(value)
    except validation.FieldError:
        raise ValueError(rule) from None
    if found is None:
        raise ValueError(rule)
    return found


def _key_name(value: Any) -> str:
    try:
        return validation.name(value)
    except validation.FieldError as error:
        raise ValueError(error.rule) from None


_CREATE: params.Readers = {
    "email": _email,
    "key_name": _key_name,
}
