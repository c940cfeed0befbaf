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
from gateway.core.json_body import JsonObject, model_in, read_object, stream_in, with_field
from gateway.http import request_body, response
from gateway.http.context import Call
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


class InferenceRoutes:
    """Handlers of everything under ``/v1``. ``max_body`` in bytes."""

    def __init__(self, inference: Inference, max_body: int) -> None:
        self._inference = inference
        self._max_body = max_body

    async def json_endpoint(self, call: Call) -> web.StreamResponse:
        fields = read_object(await request_body.read(call.request, self._max_body))
        return await self._infer(call, call.path.removeprefix("/v1/"), fields)

    async def engine(self, call: Call) -> web.StreamResponse:
        """The model in the path: openai 0.28's ``engine=``, and Azure's deployments."""
        model, endpoint = call.params["model"], call.params["endpoint"]
        if endpoint not in _ENGINE_ENDPOINTS:
            raise NotFound(f"Invalid URL ({call.method} {call.path[:200]})", code="unknown_url")
        body = await request_body.read(call.request, self._max_body)
        if read_object(body).get("model", model) != model:
            raise BadRequest("The path and the body name different models.", code="invalid_value", param="model")
        call.query = ""  # Azure's api-version means nothing to an upstream behind /v1
        return await self._infer(call, endpoint, read_object(with_field(body, "model", model)))

    async def models(self, call: Call) -> web.StreamResponse:
        models = await self._inference.models(call.caller)
        return await _json(call, {"object": "list", "data": models})

    async def model(self, call: Call) -> web.StreamResponse:
        return await _json(call, await self._inference.model(call.caller, call.params["model"]))

    async def pass_through(self, call: Call) -> web.StreamResponse:
        """Whatever else the upstream has: JSON is checked like any other, the rest goes through piece by piece."""
        if call.request.headers.get("Upgrade", "").strip().lower() == "websocket":
            raise BadRequest("This gateway does not relay WebSockets.", code="unsupported_upgrade")
        if not call.request.body_exists:
            return await self._run(call, _backend_request(call))
        if "json" in call.request.content_type:
            return await self._pass_json(call)
        if call.caller.depends_on_model:
            raise Forbidden("What this token may do depends on the model, and only in JSON bodies can that be checked.")
        return await self._pass_pieces(call)

    async def _pass_json(self, call: Call) -> web.StreamResponse:
        fields = read_object(await request_body.read(call.request, self._max_body))
        call.model = model_in(fields) if "model" in fields or call.caller.is_limited else None
        _refuse_other_models(call, fields)
        return await self._run(call, _backend_request(call, body=fields.body, fields=fields, model=call.model))

    async def _pass_pieces(self, call: Call) -> web.StreamResponse:
        upload = request_body.Upload(call.request, self._max_body)
        pieces = await upload.open()
        try:
            return await self._run(call, _backend_request(call, body=pieces))
        except UpstreamFailed:
            if upload.error is not None:
                raise upload.error from None
            raise

    async def _infer(self, call: Call, endpoint: str, fields: JsonObject) -> web.StreamResponse:
        stream = stream_in(fields)
        call.model = model_in(fields)
        _refuse_other_models(call, fields)
        request = ProviderRequest(
            method=call.method,
            path=endpoint,
            query=call.query,
            headers=_headers(call),
            body=fields.body,
            fields=fields,
            model=call.model,
            stream=stream and endpoint != "embeddings",  # which have none, whatever is asked for
        )
        return await self._run(call, request)

    async def _run(self, call: Call, request: ProviderRequest) -> web.StreamResponse:
        call.backend = self._inference.backend_for(call.caller).name
        call.ticket = ticket = await self._inference.admit(call.caller, request, Origin(call.id, _patience(call)))
        with ticket:
            began = time.perf_counter()
            try:
                answer = await self._inference.run(call.caller, request, ticket)
            finally:
                call.upstream_seconds += time.perf_counter() - began
            return await response.send(call, answer)


def _patience(call: Call) -> float | None:
    """For how many seconds the client will wait, if it is one of OpenAI's."""
    try:
        seconds = float(call.request.headers.get(_READ_TIMEOUT, ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _refuse_other_models(call: Call, fields: JsonObject) -> None:
    """Nor may a limited token name a model where only some upstreams look for one. Raises Forbidden."""
    if not call.caller.depends_on_model:
        return
    if others := [name for name in _OTHER_MODELS if name in fields]:
        raise Forbidden(f"What this token may do depends on the model; it may not send `{others[0]}`.")
    if call.path.startswith(("/v1/deployments/", "/v1/engines/")) and "model" not in call.params:
        raise Forbidden("What this token may do depends on the model; it may not name one in a path that is passed on.")


def _backend_request(call: Call, **known: Any) -> ProviderRequest:
    path = call.path.removeprefix("/v1/")
    return ProviderRequest(method=call.method, path=path, query=call.query, headers=_headers(call), **known)


def _headers(call: Call) -> Mapping[str, str]:
    """The client's headers without its credentials, and without what concerns this connection alone."""
    return {name: value for name, value in call.request.headers.items() if not _stays_here(name)}


@lru_cache(maxsize=1024)
def _stays_here(name: str) -> bool:
    return name.lower() in _STAYS_HERE


async def _json(call: Call, content: dict[str, Any]) -> web.StreamResponse:
    return await response.send(call, ProviderResponse(200, JSON, msgspec.json.encode(content)))
