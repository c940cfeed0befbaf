"""Serves ``/api/tokens``: managing tokens, and the two public routes that take a secret."""

import functools
from typing import Any

from gateway.admin.authorizer import Authorizer
from gateway.admin.tokens import TokenManagement
from gateway.auth.authenticator import Authenticator
from gateway.auth.roles import Action
from gateway.core.bounded_threads import BoundedThreads
from gateway.core.errors import BadRequest, RateLimited
from gateway.core.validators import is_secret_text, one_of, string
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.ip_rate_limit import IpRateLimit
from gateway.http.requester import requester_of, secret_holder_of
from gateway.http.response import Response, json_response
from gateway.tokens import expiry, secret, serializers, validation
from gateway.tokens.changes import CreatedToken, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Role, Status, TokenRecord, allows_model
from gateway.usage import reports
from gateway.usage.reports import UsageReports

DEFAULT_GRACE = "24h"
MAX_LISTED_ON_LOOP = 1000
"""So many tokens are filtered on the event loop, in 3 ms at most. With more, threads do it, and few lists are made at a time."""

_REVOKED = "A token with this secret, if there was one, is revoked now."


class TokenEndpoints:
    """Serves the routes below ``/api/tokens``."""

    def __init__(
        self,
        management: TokenManagement,
        usage_reports: UsageReports,
        authenticator: Authenticator,
        ip_rate_limit: IpRateLimit,
        reads: BoundedThreads,
    ) -> None:
        """``reads`` are for lists of many tokens."""
        self._management = management
        self._reports = usage_reports
        self._authenticator = authenticator
        self._ip_rate_limit = ip_rate_limit
        self._reads = reads

    async def create(self, ctx: RequestContext) -> Response:
        form = await params.parse_json_params(ctx, _CREATE, required=("name",))
        spec = TokenSpec(**_with_expiry(form, self._management.now()))
        created = await self._management.create(requester_of(ctx), spec)
        return await self._created_response(ctx, created, 201)

    async def list(self, ctx: RequestContext) -> Response:
        query = params.parse_query(ctx, _LIST)
        authorizer = await self._management.authorizer(ctx.caller)
        make_page = functools.partial(_page, authorizer, query)
        if len(authorizer.tokens) <= MAX_LISTED_ON_LOOP:
            return json_response(200, make_page())
        return json_response(200, await self._reads.run(ctx.caller.rate_key, make_page))

    async def read(self, ctx: RequestContext) -> Response:
        authorizer, record = await self._find(ctx)
        return json_response(200, serializers.to_public_json(authorizer.tokens, record, authorizer.now))

    async def usage(self, ctx: RequestContext) -> Response:
        authorizer, record = await self._find(ctx)
        totals = reports.as_json(await self._reports.total(ctx.caller.rate_key, record.id))
        return json_response(200, {**serializers.to_usage_json(authorizer.tokens, record, authorizer.now), **totals})

    async def update(self, ctx: RequestContext) -> Response:
        """Changes the fields that the request names. Raises BadRequest if there are none."""
        form = _with_expiry(await params.parse_json_params(ctx, _UPDATE), self._management.now())
        if not form:
            raise BadRequest(f"Nothing to change. Send one of {', '.join(_UPDATE)}.", code="missing_required_parameter")
        return await self._token_response(ctx, await self._management.update(requester_of(ctx), ctx.params["id"], form))

    async def revoke(self, ctx: RequestContext) -> Response:
        await params.parse_json_params(ctx, {})
        return await self._token_response(ctx, await self._management.revoke(requester_of(ctx), ctx.params["id"]))

    async def rotate(self, ctx: RequestContext) -> Response:
        form = await params.parse_json_params(ctx, {"grace": _grace})
        grace = form.get("grace", expiry.span(DEFAULT_GRACE))
        created = await self._management.rotate(requester_of(ctx), ctx.params["id"], grace)
        return await self._created_response(ctx, created, 200)

    async def delete(self, ctx: RequestContext) -> Response:
        await params.parse_json_params(ctx, {})
        await self._management.delete(requester_of(ctx), ctx.params["id"])
        return json_response(200, {"id": ctx.params["id"], "deleted": True})

    async def validate(self, ctx: RequestContext) -> Response:
        """Tells whether a secret is valid. It does not count as a use of the token."""
        text = await self._read_secret(ctx)
        if self._authenticator.is_environment_key(text):
            return json_response(200, _ENVIRONMENT_KEY)
        tokens = await self._management.tokens()
        match = None if secret.has_bad_checksum(text) else tokens.find_by_digest(secret.digest(text))
        return json_response(200, serializers.to_validity_json(tokens, match, self._management.now()))

    async def revoke_secret(self, ctx: RequestContext) -> Response:
        """Revokes the token of a secret, whoever asks. The answer is the same if there is no such token, as in RFC 7009."""
        text = await self._read_secret(ctx)
        if is_secret_text(text) and not secret.has_bad_checksum(text):
            await self._management.revoke_secret(secret_holder_of(ctx), text)
        return json_response(200, {"success": True, "message": _REVOKED})

    async def _read_secret(self, ctx: RequestContext) -> str:
        wait = self._ip_rate_limit.wait(ctx.client_address)
        if wait > 0:
            raise RateLimited(f"Too many requests from your address. Please try again in {wait:.1f} s.", wait)
        form = await params.parse_json_params(ctx, {"token": string}, required=("token",))
        return str(form["token"]).strip()  # pasted with its line end

    async def _find(self, ctx: RequestContext) -> tuple[Authorizer, TokenRecord]:
        """Returns the token of the path. Raises NotFound if the caller may not see it."""
        params.parse_query(ctx, {})
        authorizer = await self._management.authorizer(ctx.caller)
        return authorizer, authorizer.find(Action.READ, ctx.params["id"])

    async def _token_response(self, ctx: RequestContext, record: TokenRecord) -> Response:
        tokens = await self._management.tokens()
        return json_response(200, serializers.to_public_json(tokens, record, self._management.now()))

    async def _created_response(self, ctx: RequestContext, created: CreatedToken, status: int) -> Response:
        tokens = await self._management.tokens()
        return json_response(status, serializers.to_created_json(tokens, created, self._management.now()))


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
    """Replaces ``expires_in`` by ``expires_at``. Raises BadRequest for both, or for a time that has passed."""
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


def _page(authorizer: Authorizer, query: dict[str, Any]) -> dict[str, Any]:
    """Returns one page of the tokens that the requester may read and asks for, and the pagination. Only the page is rendered."""
    tokens, now = authorizer.tokens, authorizer.now
    readable = authorizer.readable_ids()
    visible = (record for record in tokens.records if readable is None or record.id in readable)
    matching = [record for record in visible if _matches(tokens, record, now, query)]
    page = params.pagination_of(query)
    items = [serializers.to_public_json(tokens, record, now) for record in page.select(matching)]
    return {"tokens": items, "pagination": page.summary(len(matching))}


def _matches(tokens: TokenHierarchy, record: TokenRecord, now: float, query: dict[str, Any]) -> bool:
    """Returns whether a token is one that the query asks for. ``name`` may contain ``*``."""
    return (
        ("owner" not in query or query["owner"] == record.owner)
        and ("name" not in query or allows_model((query["name"],), record.name))
        and ("status" not in query or query["status"] is tokens.status(record, now))
    )
