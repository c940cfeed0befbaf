"""Says what a token with limits, or with a list of models, may send. Pure.

Such a token may use the routes whose whole body is understood here, and in them no field by which an upstream would answer from
another model, or with more, than what was checked. What a prompt, a schema or a tool's arguments contain is data, whatever its
keys are called.
"""

from urllib.parse import parse_qsl

import msgspec

from gateway.auth.principal import Principal
from gateway.core import upstream_routes
from gateway.core.errors import BadRequest, Forbidden
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject
from gateway.inference import nested_models
from gateway.providers.base import ProviderRequest

CHECKED_ENDPOINTS = frozenset(
    {
        "chat/completions", "completions", "embeddings", "responses", "moderations", "rerank", "images/generations",
        "responses/input_tokens", "audio/speech", "messages", "messages/count_tokens",
    }
)  # fmt: skip
"""Paths behind ``/v1/``, compared as a whole. No other path takes a body of a token whose model is checked."""
FORM_ENDPOINTS = frozenset(
    {"images/edits", "images/variations", "audio/transcriptions", "audio/translations", "videos"}
)
"""Paths whose forms name a model."""
READ_PARAMETERS = frozenset(
    {"after", "before", "include", "include[]", "limit", "order", "purpose", "starting_after", "stream"}
)
"""Query parameters of requests that read something."""
COUNTS = frozenset({"n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"})
"""Fields that bound what is used. Each must be a number of at least 1, or null."""
PLAIN_FIELDS = frozenset(
    {
        "model", "stream", "messages", "input", "prompt", "instructions", "system", "suffix", "query", "documents", "functions",
        "function_call", "tool_choice", "response_format", "text", "metadata", "prediction", "contents", "chat_template_kwargs",
        "guided_json", "structured_outputs", "output_config", "logit_bias", "stop", "stop_sequences", "temperature", "top_p",
        "top_k", "seed", "user", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "reasoning_effort",
        "encoding_format", "dimensions",
    }
)  # fmt: skip
"""Fields that name no model and bound nothing, whatever is in them; most hold the prompt, or a schema for the answer."""

MAX_OPTIONS_BYTES = 1024
"""How large ``stream_options`` may be."""

_READING = frozenset({"GET", "HEAD", "DELETE"})
_SWITCHES = frozenset({"stream", "background", "store"})
_OTHER_ANSWERER = frozenset(
    {
        "api_base", "api_key", "base_url", "custom_llm_provider", "deployment", "deployment_id", "engine", "extra_body",
        "extra_headers", "extra_query", "litellm_params", "preset", "prompt_id", "route", "user_config",
    }
)  # fmt: skip
"""Fields that some upstreams let decide who answers, or merge into the request."""
_OTHER_COUNTS = frozenset(
    {"candidate_count", "max_new_tokens", "n_cmpl", "n_predict", "num_predict", "num_return_sequences"}
)
"""Names under which some upstreams read what ``COUNTS`` are checked for."""
_MAX_NUMBER_BYTES = 32


def _fold(name: str) -> str:
    """Returns the name as readers see it that ignore case (Go's), or that take ``maxTokens`` for ``max_tokens`` (protobuf's)."""
    return name.casefold().replace("_", "").replace("-", "")


_PROMPTS = frozenset(
    {"messages", "input", "prompt", "instructions", "system", "tools", "functions", "query", "documents"}
)
_EXACT = {_fold(name): name for name in COUNTS | _SWITCHES | _PROMPTS | {"model", "stream_options"}}
_REFUSED = frozenset(map(_fold, _OTHER_ANSWERER))
_REFUSED_UNDER_LIMITS = frozenset(map(_fold, _OTHER_COUNTS))


def check_request(principal: Principal, request: ProviderRequest) -> None:
    """Checks everything but ``model`` itself.

    Raises Forbidden for a route or a field that could choose another model, BadRequest for a field that bounds the answer and
    is misspelt or has the wrong type.
    """
    if isinstance(request.body, FormBody):
        _check_form(principal, request, request.body)
        return
    fields = request.fields if isinstance(request.fields, JsonObject) else None
    if principal.depends_on_model:
        _check_route(request, fields)
    if fields is None or not (request.path in CHECKED_ENDPOINTS or upstream_routes.has_no_model(request.path)):
        return
    for name, raw in fields.raw_values.items():
        _check_spelling(name)
        if name in COUNTS:
            _check_count(fields, name)
        elif name in _SWITCHES:
            _check_switch(fields, name)
        elif name == "stream_options":
            _check_stream_options(fields)
            _check_field(principal, request.model, name, raw)
        elif name not in PLAIN_FIELDS and bytes(memoryview(raw)[:4]) != b"null":
            _check_field(principal, request.model, name, raw)


def _check_route(request: ProviderRequest, fields: JsonObject | None) -> None:
    why = "What this token may do depends on the model"
    if request.method in _READING and request.body is None:
        # Some servers take a semicolon for an ampersand.
        for name, _ in parse_qsl(request.query.replace(";", "&"), keep_blank_values=True):
            if name not in READ_PARAMETERS:
                raise Forbidden(f"{why}; it may not send the query parameter `{name[:100]}`.")
    elif (
        request.method == "POST"
        and upstream_routes.has_no_model(request.path)
        and isinstance(request.body, bytes | None)
    ):
        return
    elif request.method != "POST" or request.path not in CHECKED_ENDPOINTS:
        routes = ", ".join(sorted(CHECKED_ENDPOINTS))
        raise Forbidden(f"{why}, and is checked only for POST to {routes} (under /v1/), not for this route.")
    elif fields is None:
        raise Forbidden(f"{why}, and only in JSON bodies can that be checked. Send one, with a JSON content type.")


def _check_form(principal: Principal, request: ProviderRequest, form: FormBody) -> None:
    """Checks the parts without a file as the fields of a JSON body are. Lists are written ``name[]``, objects ``name[key]``."""
    is_known = request.path in FORM_ENDPOINTS or upstream_routes.has_no_model(request.path)
    if principal.depends_on_model and not (is_known and request.method == "POST"):
        raise Forbidden("What this token may do depends on the model, and in forms for this route that is not checked.")
    seen: set[str] = set()
    for name, value in form.texts:
        _check_spelling(name)
        if name in COUNTS | _SWITCHES and name in seen:
            raise BadRequest(f"The form has the part `{name}` twice.", code="duplicate_key", param=name)
        seen.add(name)
        if name in COUNTS and not (value.isascii() and value.isdecimal() and int(value[:_MAX_NUMBER_BYTES]) >= 1):
            raise BadRequest(f"`{name}` must be a number of at least 1.", code="invalid_type", param=name)
        if name not in PLAIN_FIELDS and name not in COUNTS:
            _check_part(principal, request.model, name, value)


def _check_part(principal: Principal, model: str | None, name: str, value: str) -> None:
    """Some upstreams read a text that is JSON, and a name in brackets, as a field of an object."""
    is_json = value.lstrip()[:1] in ("{", "[")
    raw = msgspec.Raw(value.encode() if is_json else msgspec.json.encode(value))
    for piece in filter(None, name.replace("]", "").replace(".", "[").split("[")):
        _check_field(principal, model, piece, raw)


def _check_spelling(name: str) -> None:
    exact = _EXACT.get(_fold(name))
    if exact is not None and name != exact:
        raise BadRequest(f"The key {name[:100]!r} must be written `{exact}`.", code="invalid_value", param=name[:100])


def _check_field(principal: Principal, model: str | None, name: str, raw: msgspec.Raw) -> None:
    folded = _fold(name)
    if principal.limits and folded in _REFUSED_UNDER_LIMITS:
        raise Forbidden(f"This token has limits; it may not send `{name}`. Use `max_tokens` or `n`.", param=name)
    if not principal.depends_on_model:
        return
    if folded in _REFUSED:
        raise Forbidden(f"What this token may do depends on the model; it may not send `{name}`.", param=name)
    for key, named in nested_models.find(name, raw):
        if named is None or not _may_name(principal, model, named):
            raise Forbidden(
                f"What this token may do depends on the model; it may not name one in `{key}`.", param=name[:100]
            )


def _may_name(principal: Principal, model: str | None, named: str) -> bool:
    """Returns whether a second model may be named: the same one, or any of a list that costs are not counted for."""
    is_metered = any(own.budget is not None or own.models for _, own in principal.limits.sets)
    return named == model or (not is_metered and "," not in named and principal.may_use(named))


def _check_count(fields: JsonObject, name: str) -> None:
    value = fields.get_short(name, _MAX_NUMBER_BYTES)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 1):
        raise BadRequest(f"`{name}` must be a number of at least 1.", code="invalid_type", param=name)


def _check_switch(fields: JsonObject, name: str) -> None:
    if fields.get_short(name, _MAX_NUMBER_BYTES) not in (True, False, None):
        raise BadRequest(f"`{name}` must be true, false or null.", code="invalid_type", param=name)


def _check_stream_options(fields: JsonObject) -> None:
    options = fields.get_short("stream_options", MAX_OPTIONS_BYTES)
    if options is None:
        return
    rule = "`stream_options` must be an object in which `include_usage` is true, false or null."
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool | None):
        raise BadRequest(rule, code="invalid_type", param="stream_options")
    if any(_fold(key) == "includeusage" and key != "include_usage" for key in options):
        raise BadRequest(rule, code="invalid_value", param="stream_options")
