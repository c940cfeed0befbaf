"""``/v1/…`` that has no route of its own: requests that are passed on to the upstream."""

from collections.abc import AsyncIterator
from typing import Protocol

from gateway.auth.upstream_access import check_upstream_access
from gateway.core.errors import BadRequest, Forbidden, UpstreamFailed
from gateway.core.json_body import JsonObject, parse_object, read_model
from gateway.http.context import RequestContext
from gateway.http.request import Upload
from gateway.http.response import Response
from gateway.providers.base import ProviderRequest
from gateway.providers.request_headers import forwarded_headers


class RunInference(Protocol):
    """Sends a request upstream for the caller, and the response to the client."""

    async def __call__(
        self, ctx: RequestContext, request: ProviderRequest, fields: JsonObject | None = None
    ) -> Response: ...


class PassThroughEndpoints:
    """The endpoint of everything under ``/v1`` that has no route of its own. ``max_body`` is in bytes."""

    def __init__(self, run: RunInference, max_body: int, opened: tuple[str, ...]) -> None:
        """``opened`` are the beginnings of paths that tokens which are not admins may use besides inference."""
        self._run = run
        self._max_body = max_body
        self._opened = opened

    async def pass_through(self, ctx: RequestContext) -> Response:
        """Serves whatever else the upstream has: JSON is checked like any other, other bodies pass in chunks.

        Raises BadRequest for a WebSocket, Forbidden for what the caller may not use, and for a body whose model cannot be checked
        where it has to be.
        """
        if ctx.request.headers.get("Upgrade", "").strip().lower() == "websocket":
            raise BadRequest("This gateway does not relay WebSockets.", code="unsupported_upgrade")
        check_upstream_access(ctx.caller, ctx.method, ctx.path.removeprefix("/v1/"), self._opened)
        if not ctx.request.connection.has_body:
            return await self._run(ctx, _passed_request(ctx))
        if "json" in ctx.request.media_type:
            return await self._pass_json(ctx)
        if ctx.caller.depends_on_model:
            raise Forbidden("What this token may do depends on the model, and only in JSON bodies can that be checked.")
        return await self._pass_chunks(ctx)

    async def _pass_json(self, ctx: RequestContext) -> Response:
        fields = parse_object(await ctx.request.read(self._max_body))
        model = read_model(fields) if "model" in fields.raw_values or ctx.caller.is_limited else None
        request = _passed_request(ctx, body=fields.body, fields=fields, model=model)
        return await self._run(ctx, request, fields)

    async def _pass_chunks(self, ctx: RequestContext) -> Response:
        upload = Upload(ctx.request, self._max_body)
        chunks = upload.open()
        try:
            return await self._run(ctx, _passed_request(ctx, body=chunks))
        except UpstreamFailed:
            if upload.error is not None:
                raise upload.error from None
            raise


def _passed_request(
    ctx: RequestContext,
    body: bytes | AsyncIterator[bytes] | None = None,
    fields: JsonObject | None = None,
    model: str | None = None,
) -> ProviderRequest:
    return ProviderRequest(
        method=ctx.method,
        path=ctx.path.removeprefix("/v1/"),
        query=ctx.query,
        headers=forwarded_headers(ctx.request.headers, ctx.caller.token_id),
        body=body,
        fields=fields,
        model=model,
    )
