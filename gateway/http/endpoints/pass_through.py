"""``/v1/…`` that has no route of its own: requests that are passed on to the upstream."""

from collections.abc import AsyncIterator
from typing import Protocol

from gateway.auth.upstream_access import check_upstream_access
from gateway.core.errors import Forbidden, NotFound, UpgradeRequired
from gateway.core.form_data import FORM
from gateway.core.json_body import JsonObject, names_model, parse_object, read_model
from gateway.core.upstream_errors import UpstreamFailed
from gateway.core.upstream_routes import may_lack_model, takes_uploads
from gateway.http.context import RequestContext
from gateway.http.form_reader import FORM_BYTES
from gateway.http.path_validation import problem_with_passed
from gateway.http.request import Upload
from gateway.http.response import Response
from gateway.inference.checked_requests import CHECKED_ENDPOINTS, FORM_ENDPOINTS
from gateway.inference.route_cost import check_route_cost
from gateway.providers.base import JSON, ProviderRequest
from gateway.providers.request_headers import forwarded_headers
from gateway.providers.request_query import forwarded_query
from gateway.routing.object_access import ObjectAccess
from gateway.tokens.models import Role


class RunInference(Protocol):
    """Sends a request upstream for the caller, and the response to the client."""

    async def __call__(self, ctx: RequestContext, request: ProviderRequest) -> Response: ...


class RunForm(Protocol):
    """Reads the form of a request and sends it upstream; ``path`` is what follows ``/v1/``."""

    async def __call__(self, ctx: RequestContext, path: str) -> Response: ...


class PassThroughEndpoints:
    """The endpoint of everything under ``/v1`` that has no route of its own. ``max_body`` is in bytes."""

    def __init__(
        self, run: RunInference, run_form: RunForm, max_body: int, objects: ObjectAccess, opened: tuple[str, ...]
    ) -> None:
        """``opened`` are the beginnings of paths that tokens which are not admins may use besides inference."""
        self._objects = objects
        self._run = run
        self._run_form = run_form
        self._max_body = max_body
        self._opened = opened

    async def pass_through(self, ctx: RequestContext) -> Response:
        """Serves whatever else the upstream has: JSON is checked like any other, other bodies pass in chunks.

        Raises UpgradeRequired for a WebSocket, NotFound for a path that an upstream may read otherwise and for objects that are
        not the caller's, Forbidden for what the caller may not use, and for a body whose model cannot be checked where it has
        to be; QuotaExceeded for what costs an unknown amount where the caller has a budget.
        """
        if ctx.asks_for_websocket:
            raise UpgradeRequired
        if (problem := problem_with_passed(ctx.path)) is not None:
            raise NotFound(f"Invalid URL: the path {problem}.", code="unknown_url")
        path = ctx.path.removeprefix("/v1/")
        check_route_cost(ctx.caller, ctx.method, path)
        check_upstream_access(ctx.caller, ctx.method, path, self._opened)
        await self._objects.check_path(ctx.caller, ctx.method, path, ctx.query)
        if not ctx.request.connection.has_body:
            return await self._run(ctx, _passed_request(ctx))
        if is_json(ctx.request.media_type) or not (ctx.caller.role is Role.ADMIN or takes_uploads(path)):
            return await self._pass_json(ctx)
        if ctx.request.media_type == FORM and (path in FORM_ENDPOINTS or ctx.caller.depends_on_model):
            return await self._run_form(ctx, path)
        if ctx.caller.depends_on_model:
            raise Forbidden(
                "What this token may do depends on the model, and is checked in JSON bodies and in forms alone."
            )
        return await self._pass_chunks(ctx)

    async def _pass_json(self, ctx: RequestContext) -> Response:
        fields = parse_object(await ctx.request.read(self._max_body))
        needs_model = ctx.caller.is_limited and not may_lack_model(ctx.path.removeprefix("/v1/"))
        model = read_model(fields) if names_model(fields) or needs_model else None
        request = _passed_request(ctx, body=fields.body, fields=fields, model=model)
        return await self._run(ctx, request)

    async def _pass_chunks(self, ctx: RequestContext) -> Response:
        is_form = ctx.request.media_type == FORM
        upload = Upload(ctx.request, self._max_body + FORM_BYTES if is_form else self._max_body)
        chunks = upload.open()
        try:
            return await self._run(ctx, _passed_request(ctx, body=chunks))
        except UpstreamFailed:
            if upload.error is not None:
                raise upload.error from None
            raise


def is_json(media_type: str) -> bool:
    """Returns whether a body of this type is read as one JSON value. Lines of JSON (``application/jsonl``) are none."""
    return media_type in (JSON, "text/json") or media_type.endswith("+json")


def _passed_request(
    ctx: RequestContext,
    body: bytes | AsyncIterator[bytes] | None = None,
    fields: JsonObject | None = None,
    model: str | None = None,
) -> ProviderRequest:
    """Returns what goes upstream: for a body that was read as JSON it says so, whatever the client said.

    A body in chunks keeps its length: many servers that take uploads refuse a body without one.
    """
    path = ctx.path.removeprefix("/v1/")
    is_checked = path in CHECKED_ENDPOINTS and ctx.method not in ("GET", "HEAD")
    content_type = ctx.request.headers.get("Content-Type") if body is not None else None
    headers = forwarded_headers(ctx.request.headers, content_type if fields is None else JSON)
    length = ctx.request.connection.content_length
    if body is not None and fields is None and length is not None:
        headers["Content-Length"] = str(length)
    return ProviderRequest(
        method=ctx.method,
        path=path,
        query=forwarded_query(ctx.query) if is_checked else ctx.query,
        headers=headers,
        body=body,
        fields=fields,
        model=model,
        request_id=ctx.id,
    )
