"""``/api/tokens``: create, list, read, change, rotate, revoke, delete; and what anybody may do who holds a secret."""

from typing import Any

from gateway.admin.authorizer import Authorizer
from gateway.admin.tokens import TokenManagement
from gateway.auth.authenticator import Authenticator
from gateway.auth.roles import Action
from gateway.core.errors import BadRequest, RateLimited
from gateway.core.validators import is_secret_text, one_of, string
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.middleware.ip_rate_limit import IpRateLimit
from gateway.http.requester import requester_of, secret_holder_of
from gateway.http.response import Response, json_response
from gateway.tokens import expiry, secret, serializers, validation
from gateway.tokens.changes import CreatedToken, TokenSpec
from gateway.tokens.models import Role, Status, TokenRecord, allows_model
from gateway.usage import reports
from gateway.usage.reports import UsageReports

DEFAULT_GRACE = "24h"
_REVOKED = "A token with this secret, if there was one, is revoked now."


class TokenEndpoints:
    """Handlers for what ``management`` does."""

    def __init__(
        self,
        management: TokenManagement,
        usage_reports: UsageReports,
        authenticator: Authenticator,
        ip_rate_limit: IpRateLimit,
    ) -> None:
        self._management = management
        self._reports = usage_reports
        self._authenticator = authenticator
        self._ip_rate_limit = ip_rate_limit

    async def create(self, ctx: RequestContext) -> Response:
        form = await params.parse_json_params(ctx, _CREATE, required=("name",))
        spec = TokenSpec(**_with_expiry(form, self._management.now()))
        made = await self._management.create(requester_of(ctx), spec)
        return await self._shown_once(ctx, made, 201)

    async def list(self, ctx: RequestContext) -> Response:
        query = params.parse_query(ctx, _LIST)
        authorizer = await self._management.authorizer(ctx.caller)
        found = [
            record
            for record in authorizer.tokens.records
            if authorizer.allows(Action.READ, record)
            and _fits(record, authorizer.tokens.status(record, authorizer.now), query)
        ]
        page = params.pagination_of(query)
        shown = [serializers.to_public_json(authorizer.tokens, record, authorizer.now) for record in page.select(found)]
        return json_response(200, {"tokens": shown, "pagination": page.summary(len(found))})

    async def read(self, ctx: RequestContext) -> Response:
        authorizer, record = await self._found(ctx)
        return json_response(200, serializers.to_public_json(authorizer.tokens, record, authorizer.now))

    async def usage(self, ctx: RequestContext) -> Response:
        authorizer, record = await self._found(ctx)
        totals = reports.as_json(await self._reports.total(record.id))
        return json_response(200, {**serializers.to_usage_json(authorizer.tokens, record, authorizer.now), **totals})

    async def update(self, ctx: RequestContext) -> Response:
        form = _with_expiry(await params.parse_json_params(ctx, _UPDATE), self._management.now())
        if not form:
            raise BadRequest(f"Nothing to change. Send one of {', '.join(_UPDATE)}.", code="missing_required_parameter")
        return await self._shown(ctx, await self._management.update(requester_of(ctx), ctx.params["id"], form))

    async def revoke(self, ctx: RequestContext) -> Response:
        await params.parse_json_params(ctx, {})
        return await self._shown(ctx, await self._management.revoke(requester_of(ctx), ctx.params["id"]))

    async def rotate(self, ctx: RequestContext) -> Response:
        form = await params.parse_json_params(ctx, {"grace": _grace})
        grace = form.get("grace", expiry.span(DEFAULT_GRACE))
        made = await self._management.rotate(requester_of(ctx), ctx.params["id"], grace)
        return await self._shown_once(ctx, made, 200)

    async def delete(self, ctx: RequestContext) -> Response:
        await params.parse_json_params(ctx, {})
        await self._management.delete(requester_of(ctx), ctx.params["id"])
        return json_response(200, {"id": ctx.params["id"], "deleted": True})

    async def validate(self, ctx: RequestContext) -> Response:
        """Is this secret good? Public, and no use of it."""
        given = await self._public_secret(ctx)
        if self._authenticator.is_environment_key(given):
            return json_response(200, _ENVIRONMENT_KEY)
        tokens = await self._management.tokens()
        match = None if secret.has_bad_checksum(given) else tokens.find_by_digest(secret.digest(given))
        return json_response(200, serializers.to_validity_json(tokens, match, self._management.now()))

    async def revoke_secret(self, ctx: RequestContext) -> Response:
        """End it, whoever asks: who holds a leaked secret can kill it. The answer tells nothing (RFC 7009)."""
        given = await self._public_secret(ctx)
        if is_secret_text(given) and not secret.has_bad_checksum(given):
            await self._management.revoke_secret(secret_holder_of(ctx), given)
        return json_response(200, {"success": True, "message": _REVOKED})

    async def _public_secret(self, ctx: RequestContext) -> str:
        wait = self._ip_rate_limit.wait(ctx.client.address)
        if wait > 0:
            raise RateLimited(f"Too many requests from your address. Please try again in {wait:.1f} s.", wait)
        form = await params.parse_json_params(ctx, {"token": string}, required=("token",))
        return str(form["token"]).strip()  # pasted with its line end

    async def _found(self, ctx: RequestContext) -> tuple[Authorizer, TokenRecord]:
        """The token of the path, if the caller may see it."""
        params.parse_query(ctx, {})
        authorizer = await self._management.authorizer(ctx.caller)
        return authorizer, authorizer.find(Action.READ, ctx.params["id"])

    async def _shown(self, ctx: RequestContext, record: TokenRecord) -> Response:
        tokens = await self._management.tokens()
        return json_response(200, serializers.to_public_json(tokens, record, self._management.now()))

    async def _shown_once(self, ctx: RequestContext, made: CreatedToken, status: int) -> Response:
        tokens = await self._management.tokens()
        return json_response(status, serializers.to_created_json(tokens, made, self._management.now()))


_ENVIRONMENT_KEY = {
    "valid": True,
    "name": "environment",
    "created_at": None,
    "last_used": None,
    "usage_count": 0,
    "status": "active",
    "expires_at": None,
}


def _role(value: Any) -> Role:
    if value is None:
        raise validation.FieldError("role", f"must be one of {', '.join(Role)}")
    return validation.role(value)


def _grace(value: Any) -> int:
    return expiry.span(string(value))


def _parent_id(value: Any) -> str | None:
    return None if value is None else string(value)


_UPDATE: params.Readers = {
    "name": validation.name,
    "owner": validation.owner,
    "role": _role,
    "expires_at": validation.READERS["expires_at"],
    "expires_in": string,
    "models": validation.models,
    "limits": validation.limits,
    "metadata": validation.new_metadata,
}
_CREATE: params.Readers = {**_UPDATE, "parent_id": _parent_id, "prefix": one_of(*secret.PREFIXES)}
_LIST: params.Readers = {
    **params.PAGE_READERS,
    "owner": string,
    "status": lambda value: Status(one_of(*Status)(value)),
    "name": string,
}


def _with_expiry(form: dict[str, Any], now: float) -> dict[str, Any]:
    """``expires_in`` becomes ``expires_at``; a time that has passed is refused."""
    if "expires_in" in form:
        if "expires_at" in form:
            raise BadRequest("Send `expires_at` or `expires_in`, not both.", code="invalid_value", param="expires_in")
        try:
            form["expires_at"] = expiry.expiry_in(form.pop("expires_in"), now)
        except ValueError as error:
            raise BadRequest(f"`expires_in`: {error}.", code="invalid_value", param="expires_in") from None
    expires_at = form.get("expires_at")
    if expires_at is not None and expires_at <= now:
        raise BadRequest("`expires_at` does not lie in the future.", code="invalid_value", param="expires_at")
    return form


def _fits(record: TokenRecord, status: Status, query: dict[str, Any]) -> bool:
    """``name`` may hold stars."""
    return (
        query.get("owner", record.owner) == record.owner
        and query.get("status", status) is status
        and ("name" not in query or allows_model((query["name"],), record.name))
    )
