"""``/v1``: bodies are checked, models are found, answers are relayed."""

import math
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from multidict import istr

from gateway.auth import credentials
from gateway.core.errors import BadRequest, Forbidden, NotFound, UpstreamFailed
from gateway.core.json_body import JsonObject, parse_object, read_model, read_stream, set_field
from gateway.http import request_body, response
from gateway.http.context import RequestContext
from gateway.inference.service import Inference, Origin
from gateway.providers.base import JSON, ProviderRequest, ProviderResponse

_READ_TIMEOUT = istr("x-stainless-read-timeout")
_ENGINE_ENDPOINTS = frozenset({"chat/completions", "completions", "embeddings"})
_OTHER_MODELS = ("fallbacks", "models", "route")
"""Fields by which some upstreams answer from another model than ``model``."""
_STAYS_HERE = credentials.HEADERS | {
    "connection", "content-encoding", "content-length", "cookie", "expect", "forwarded", "host", "keep-alive", "origin",
    "proxy-authorization", "referer", "sec-websocket-protocol", "te", "trailer", "transfer-encoding", "upgrade",
    "x-forwarded-for",
}  # fmt: skip


class OpenAIEndpoints:
    """Handlers of everything under ``/v1``. ``max_body`` in bytes."""

    def __init__(self, inference: Inference, max_body: int) -> None:
        self._inference = inference
        self._max_body = max_body

    async def json_endpoint(self, ctx: RequestContext) -> web.StreamResponse:
        fields = parse_object(await request_body.read(ctx.request, self._max_body))
        return await self._infer(ctx, ctx.path.removeprefix("/v1/"), fields)

    async def engine(self, ctx: RequestContext) -> web.StreamResponse:
        """The model in the path: openai 0.28's ``engine=``, and Azure's deployments."""
        model, endpoint = ctx.params["model"], ctx.params["endpoint"]
        if endpoint not in _ENGINE_ENDPOINTS:
            raise NotFound(f"Invalid URL ({ctx.method} {ctx.path[:200]})", code="unknown_url")
        body = await request_body.read(ctx.request, self._max_body)
        if parse_object(body).get("model", model) != model:
            raise BadRequest("The path and the body name different models.", code="invalid_value", param="model")
        ctx.query = ""  # Azure's api-version means nothing to an upstream behind /v1
        return await self._infer(ctx, endpoint, parse_object(set_field(body, "model", model)))

    async def models(self, ctx: RequestContext) -> web.StreamResponse:
        models = await self._inference.models(ctx.caller)
        return await _json(ctx, {"object": "list", "data": models})

    async def model(self, ctx: RequestContext) -> web.StreamResponse:
        return await _json(ctx, await self._inference.model(ctx.caller, ctx.params["model"]))

    async def pass_through(self, ctx: RequestContext) -> web.StreamResponse:
        """Whatever else the upstream has: JSON is checked like any other, the rest goes through piece by piece."""
        if ctx.request.headers.get("Upgrade", "").strip().lower() == "websocket":
            raise BadRequest("This gateway does not relay WebSockets.", code="unsupported_upgrade")
        if not ctx.request.body_exists:
            return await self._run(ctx, _backend_request(ctx))
        if "json" in ctx.request.content_type:
            return await self._pass_json(ctx)
        if ctx.caller.depends_on_model:
            raise Forbidden("What this token may do depends on the model, and only in JSON bodies can that be checked.")
        return await self._pass_pieces(ctx)

    async def _pass_json(self, ctx: RequestContext) -> web.StreamResponse:
        fields = parse_object(await request_body.read(ctx.request, self._max_body))
        ctx.model = read_model(fields) if "model" in fields or ctx.caller.is_limited else None
        _refuse_other_models(ctx, fields)
        return await self._run(ctx, _backend_request(ctx, body=fields.body, fields=fields, model=ctx.model))

    async def _pass_pieces(self, ctx: RequestContext) -> web.StreamResponse:
        upload = request_body.Upload(ctx.request, self._max_body)
        pieces = await upload.open()
        try:
            return await self._run(ctx, _backend_request(ctx, body=pieces))
        except UpstreamFailed:
            if upload.error is not None:
                raise upload.error from None
            raise

    async def _infer(self, ctx: RequestContext, endpoint: str, fields: JsonObject) -> web.StreamResponse:
        stream = read_stream(fields)
        ctx.model = read_model(fields)
        _refuse_other_models(ctx, fields)
        request = ProviderRequest(
            method=ctx.method,
            path=endpoint,
            query=ctx.query,
            headers=_headers(ctx),
            body=fields.body,
            fields=fields,
            model=ctx.model,
            stream=stream and endpoint != "embeddings",  # which have none, whatever is asked for
        )
        return await self._run(ctx, request)

    async def _run(self, ctx: RequestContext, request: ProviderRequest) -> web.StreamResponse:
        ctx.backend = self._inference.backend_for(ctx.caller).name
        ctx.usage_tracker = usage_tracker = await self._inference.admit(
            ctx.caller, request, Origin(ctx.id, _patience(ctx))
        )
        with usage_tracker:
            began = time.perf_counter()
            try:
                answer = await self._inference.run(ctx.caller, request, usage_tracker)
            finally:
                ctx.upstream_seconds += time.perf_counter() - began
            return await response.send(ctx, answer)


def _patience(ctx: RequestContext) -> float | None:
    """For how many seconds the client will wait, if it is one of OpenAI's."""
    try:
        seconds = float(ctx.request.headers.get(_READ_TIMEOUT, ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _refuse_other_models(ctx: RequestContext, fields: JsonObject) -> None:
    """Nor may a limited token name a model where only some upstreams look for one. Raises Forbidden."""
    if not ctx.caller.depends_on_model:
        return
    if others := [name for name in _OTHER_MODELS if name in fields]:
        raise Forbidden(f"What this token may do depends on the model; it may not send `{others[0]}`.")
    if ctx.path.startswith(("/v1/deployments/", "/v1/engines/")) and "model" not in ctx.params:
        raise Forbidden("What this token may do depends on the model; it may not name one in a path that is passed on.")


def _backend_request(ctx: RequestContext, **known: Any) -> ProviderRequest:
    path = ctx.path.removeprefix("/v1/")
    return ProviderRequest(method=ctx.method, path=path, query=ctx.query, headers=_headers(ctx), **known)


def _headers(ctx: RequestContext) -> Mapping[str, str]:
    """The client's headers without its credentials, and without what concerns this connection alone."""
    return {name: value for name, value in ctx.request.headers.items() if not _stays_here(name)}


@lru_cache(maxsize=1024)
def _stays_here(name: str) -> bool:
    return name.lower() in _STAYS_HERE


async def _json(ctx: RequestContext, content: dict[str, Any]) -> web.StreamResponse:
    return await response.send(ctx, ProviderResponse(200, JSON, msgspec.json.encode(content)))
