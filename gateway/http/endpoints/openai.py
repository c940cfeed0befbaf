"""``/v1``: requests for inference. Bodies are checked, the use case is opened, and its response is sent inside it."""

import math
from collections.abc import Mapping

import msgspec
from multidict import istr

from gateway.core.errors import BadRequest, NotFound
from gateway.core.form_data import FORM
from gateway.core.json_body import JsonObject, names_model, parse_object, read_model_and_stream, read_stream
from gateway.http.context import RequestContext
from gateway.http.form_reader import FormReader
from gateway.http.response import Response
from gateway.http.untrusted_content import DATA_TYPES, response_headers
from gateway.inference.checked_requests import FORM_ENDPOINTS
from gateway.inference.models import InferenceRequest
from gateway.inference.service import Inference
from gateway.providers.base import JSON, ProviderRequest
from gateway.providers.request_headers import IDEMPOTENCY_KEY, forwarded_headers, scope_idempotency_key
from gateway.providers.request_query import forwarded_query
from gateway.routing.object_access import ObjectAccess
from gateway.routing.requested_objects import LARGE_BODY, MARKS
from gateway.usage.estimate import SOUND_ENDPOINTS

_READ_TIMEOUT = istr("x-stainless-read-timeout")
_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_WITHOUT_STORE = frozenset({"completions", "embeddings"})
"""Endpoints whose responses no upstream keeps."""
_ENGINE_ENDPOINTS = frozenset({"chat/completions", "completions", "embeddings", "images/generations", "audio/speech"})


class OpenAIEndpoints:
    """Endpoints of inference and of the list of models. ``max_body`` is in bytes."""

    def __init__(self, inference: Inference, objects: ObjectAccess, max_body: int) -> None:
        self._inference = inference
        self._objects = objects
        self._max_body = max_body
        self._forms = FormReader(max_body)

    async def json_endpoint(self, ctx: RequestContext) -> Response:
        """Serves the endpoints whose body is a JSON object with a model."""
        fields = parse_object(await ctx.request.read(self._max_body))
        return await self._infer(ctx, ctx.path.removeprefix("/v1/"), fields)

    async def engine(self, ctx: RequestContext) -> Response:
        """Serves requests whose path names the model: openai 0.28's ``engine=``, and Azure's deployments.

        The path wins over a model in the body: Azure's clients send both, and Azure looks at the path alone. Raises NotFound for
        an unknown endpoint.
        """
        model, endpoint = ctx.params["model"], ctx.params["endpoint"]
        if endpoint in FORM_ENDPOINTS and ctx.request.media_type == FORM:
            ctx.query = ""
            return await self.run_form(ctx, endpoint, model)
        if endpoint not in _ENGINE_ENDPOINTS:
            raise NotFound(f"Invalid URL ({ctx.method} {ctx.path[:200]})", code="unknown_url")
        fields = parse_object(await ctx.request.read(self._max_body))
        ctx.query = ""  # Azure's api-version means nothing to an upstream behind /v1
        return await self._infer(ctx, endpoint, fields.copy_with("model", model))

    async def models(self, ctx: RequestContext) -> Response:
        """Lists the models that the caller may use."""
        models = await self._inference.catalog.models(ctx.caller)
        return Response(200, _JSON, msgspec.json.encode({"object": "list", "data": models}))

    async def model(self, ctx: RequestContext) -> Response:
        """Returns one model."""
        found = await self._inference.catalog.model(ctx.caller, ctx.params["model"])
        return Response(200, _JSON, msgspec.json.encode(found))

    async def _infer(self, ctx: RequestContext, endpoint: str, fields: JsonObject) -> Response:
        if endpoint == "responses" and _leaves_model_to_prompt(fields) and not ctx.caller.depends_on_model:
            model, stream = None, read_stream(fields)
        else:
            model, stream = read_model_and_stream(fields)
        request = ProviderRequest(
            method=ctx.method,
            path=endpoint,
            query=ctx.query and forwarded_query(ctx.query),
            headers=forwarded_headers(ctx.request.headers, JSON),
            body=fields.body,
            fields=fields,
            model=model,
            stream=stream and endpoint != "embeddings",  # they are never streamed, whatever the body says
            request_id=ctx.id,
        )
        return await self.run(ctx, request)

    async def run_form(self, ctx: RequestContext, path: str, model: str | None = None) -> Response:
        """Reads a form and sends it upstream, with ``model`` in place of its own if one is given.

        Raises BadRequest for a form that can be read in two ways, or without a model where it has to be checked; and what
        ``FormReader.read`` and ``run`` raise.
        """
        async with self._forms.read(ctx) as given:
            if path in SOUND_ENDPOINTS:
                await given.measure_sound()
            form = given if model is None else given.with_model(model)
            if form.model is None and path in FORM_ENDPOINTS and ctx.caller.depends_on_model:
                message = "you must provide a model parameter"
                raise BadRequest(message, code="missing_required_parameter", param="model")
            fields = form.fields
            await self._objects.check_body(ctx.caller, fields.body)
            headers = {**forwarded_headers(ctx.request.headers), **form.headers}
            query = forwarded_query(ctx.query)
            request = ProviderRequest(ctx.method, path, query, headers, form, fields, form.model, request_id=ctx.id)
            return await self.run(ctx, request)

    async def run(self, ctx: RequestContext, request: ProviderRequest) -> Response:
        """Sends ``request`` upstream for the caller, and the response to the client while the use case is open.

        Raises Forbidden for a model that cannot be checked where it has to be, NotFound for a stored object that is not the
        caller's, and whatever the use case raises.
        """
        caller = ctx.caller
        if IDEMPOTENCY_KEY in ctx.request.headers and caller.token_id is not None:
            scoped = scope_idempotency_key(request.headers, caller.token_id)
            request = msgspec.structs.replace(request, headers=scoped)
        ctx.inference = inference = InferenceRequest(ctx.id, request, _max_wait(ctx))
        if isinstance(request.body, bytes) and _may_name_objects(request.body):
            await self._objects.check_body(caller, request.body)
        if ctx.request.body_account is not None and ctx.request.body_account.not_admitted:
            inference.on_admitted = ctx.request.body_account.admitted
        async with self._inference.open(caller, inference) as response:
            if request.path not in _WITHOUT_STORE and (request.path != "chat/completions" or _asks_to_store(request)):
                await self._objects.receive(caller, request, response)
            headers: Mapping[str, str] = {**response.headers, "Content-Type": response.content_type}
            if response.content_type not in DATA_TYPES or "content-disposition" in response.headers:
                headers = response_headers(response.content_type, response.headers)
            return await ctx.send(Response(response.status, headers, response.body))


def _leaves_model_to_prompt(fields: JsonObject) -> bool:
    """Returns whether a body names a prompt that the upstream has stored, and no model: the prompt has one."""
    return not names_model(fields) and bytes(memoryview(fields.raw_values.get("prompt", b""))[:1]) == b"{"


def _may_name_objects(body: bytes) -> bool:
    """Whether a body has to be searched for ids of stored objects. Most chats are known here not to have any."""
    if len(body) > LARGE_BODY:
        return True  # that search takes longer, so it is left to a thread
    # For bytes, `find` takes a fifth of the time of `in`.
    return max(map(body.lower().find, MARKS)) >= 0 or body.find(b"\\u") >= 0 or not body.isascii()


def _asks_to_store(request: ProviderRequest) -> bool:
    return not isinstance(request.body, bytes) or b'"store"' in request.body or b"\\u" in request.body


def _max_wait(ctx: RequestContext) -> float | None:
    """Returns how many seconds the client will wait, if it is one of OpenAI's, which say so."""
    given = ctx.request.headers.get(_READ_TIMEOUT)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
