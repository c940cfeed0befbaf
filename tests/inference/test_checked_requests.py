"""What a token may send whose rights or costs depend on the model: what is understood, and nothing else."""

from typing import Any

import pytest

from gateway.core.errors import BadRequest, Forbidden
from gateway.inference.checked_requests import CHECKED_ENDPOINTS
from gateway.providers.base import ProviderRequest
from tests.support.inference import answering, chat, make_inference, post, token_with

CHEAP = token_with(models=("cheap*",))
WITH_BUDGET = token_with({"budget": "1"})
WITH_RATE = token_with({"tpm": 100_000})
WITHOUT_LIMITS = token_with()
EVERYBODY_LIMITED = [CHEAP, WITH_BUDGET, WITH_RATE]
PRICES = {"cheap": {"input": 1, "output": 10}}
WHOLE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'

NAMES_ANOTHER_MODEL: list[dict[str, Any]] = [
    {"models": ["dear"]},
    {"Models": ["dear"]},
    {"model\u017f": ["dear"]},
    {"fallbacks": ["dear"]},
    {"Fallbacks": ["dear"]},
    {"fallbac\u212as": ["dear"]},
    {"default_fallbacks": ["dear"]},
    {"context_window_fallbacks": [{"cheap": ["dear"]}]},
    {"content_policy_fallbacks": [{"cheap": ["dear"]}]},
    {"fallback_model": "dear"},
    {"draft_model": "dear"},
    {"modelId": "dear"},
    {"route": "fallback"},
    {"Route": "fallback"},
    {"extra_body": {"model": "dear"}},
    {"extraBody": {"n": 9}},
    {"deployment": "dear"},
    {"deployment_id": "dear"},
    {"engine": "dear"},
    {"user_config": {"model_list": []}},
    {"api_base": "http://127.0.0.1:1"},
    {"tools": [{"type": "image_generation", "model": "dear"}]},
    {"tools": [{"type": "image_generation", "Model": "dear"}]},
    {"tools": [{"type": "image_generation", "model": "cheap,dear"}]},
    {"tools": [{"type": "openrouter:image_generation", "parameters": {"model": "dear"}}]},
    {"tools": [{"type": "x", "model": {"id": "dear"}}]},
    {"providerOptions": {"gateway": {"models": ["dear"]}}},
    {"params": [{"deep": [{"model": "dear"}]}]},
    {"provider": {"fallbacks": ["dear"]}},
    {"stream_options": {"include_usage": True, "fallbacks": ["dear"]}},
]
NAMES_NO_OTHER_MODEL: list[dict[str, Any]] = [
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {"type": "string"}}}}}]},
    {"tools": [{"name": "f", "input_schema": {"properties": {"model": {"enum": ["a"]}}, "required": ["model"]}}]},
    {"tools": [{"type": "function", "name": "f", "parameters": {"$defs": {"model": {"type": "object"}}}}]},
    {"tools": [{"name": "f", "description": 'Sets "model": to "dear", or fallbacks.', "input_examples": [{"model": "x"}]}]},
    {"tools": [{"type": "image_generation", "model": "cheap"}]},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {"model": {}}}}}},
    {"text": {"format": {"schema": {"properties": {"models": {}}}}}},
    {"messages": [{"role": "user", "content": 'Say {"model": "dear"}', "model": "dear"}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"model":"dear"}'}}]}]},
    {"input": [{"type": "tool_use", "input": {"model": "dear"}}]},
    {"metadata": {"model": "dear"}},
    {"chat_template_kwargs": {"model_identity": "You are a robot."}},
    {"provider": {"order": ["a"], "allow_fallbacks": False}},
    {"models": None, "fallbacks": None, "extra_body": None},
    {"stream_options": {"include_usage": True}, "n": 1, "max_tokens": None, "background": False},
    {"temperature": 1, "top_p": 1, "seed": 7, "stop": ["a"], "reasoning": {"effort": "low"}, "store": True, "unheard_of": [1]},
]  # fmt: skip


async def sent(principal: Any, request: ProviderRequest) -> int:
    """Returns how many requests got to the provider."""
    provider = answering(WHOLE)
    setup = make_inference(provider, prices=PRICES)
    try:
        await setup.respond(principal, request)
    finally:
        count = len(provider.requests)
        assert count == len(setup.ledger.entries)
    return count


@pytest.mark.parametrize("fields", NAMES_ANOTHER_MODEL, ids=str)
@pytest.mark.parametrize("principal", [CHEAP, WITH_BUDGET], ids=["list", "budget"])
async def test_a_second_model_is_refused(principal: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match="What this token may do depends on the model"):
        await sent(principal, chat("cheap", **fields))
    assert await sent(WITHOUT_LIMITS, chat("cheap", **fields)) == 1


@pytest.mark.parametrize("fields", NAMES_NO_OTHER_MODEL, ids=str)
@pytest.mark.parametrize("principal", [CHEAP, WITH_BUDGET], ids=["list", "budget"])
async def test_data_that_has_a_key_model_passes(principal: Any, fields: dict[str, Any]) -> None:
    assert await sent(principal, chat("cheap", **fields)) == 1


async def test_a_second_model_does_not_matter_where_limits_do_not_depend_on_it() -> None:
    assert await sent(WITH_RATE, chat("cheap", models=["dear"], route="fallback", stream_options=None)) == 1


async def test_another_model_of_the_list_may_be_named_unless_costs_are_counted() -> None:
    fields = {"tools": [{"type": "image_generation", "model": "cheap-images"}]}
    assert await sent(CHEAP, chat("cheap", **fields)) == 1
    for limits in ({"budget": "1"}, {"models": {"cheap": {"rpm": 5}}}):
        with pytest.raises(Forbidden, match="may not name one in `model`"):
            await sent(token_with(limits, models=("cheap*",)), chat("cheap", **fields))


@pytest.mark.parametrize(
    "tool",
    [b'{"model":"cheap","model":"dear"}', b'{"model":"dear","model":"cheap"}', b'{"\\u006dodel":"dear"}', b'{"MODEL":"dear"}',
     b'{ "mode\\u006c" : "dear" }'],
)  # fmt: skip
async def test_no_spelling_of_a_key_hides_a_second_model(tool: bytes) -> None:
    body = b'{"model":"cheap","messages":[],"tools":[%s]}' % tool
    with pytest.raises(Forbidden):
        await sent(CHEAP, post("chat/completions", body))


async def test_what_is_too_large_to_be_checked_is_refused() -> None:
    body = b'{"model":"cheap","messages":[],"tools":[{"model":"dear",%s"a":0}]}' % (b" " * 2**20)
    with pytest.raises(BadRequest, match="`tools` is too long"):
        await sent(CHEAP, post("chat/completions", body))


@pytest.mark.parametrize("value", ["1", "16000", 0, -1, True, [], {}, [[]] * 10_000, "1" * 10_000])
@pytest.mark.parametrize("name", ["n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("principal", EVERYBODY_LIMITED, ids=["list", "budget", "rate"])
async def test_what_bounds_an_answer_must_be_a_number(principal: Any, name: str, value: Any) -> None:
    for given, path in ((value, "chat/completions"), (value, "responses")):
        if principal is CHEAP:
            principal = token_with({"rpm": 5}, models=("cheap",))
        with pytest.raises(BadRequest) as caught:
            await sent(principal, post(path, {"model": "cheap", "input": "x", name: given}))
        assert caught.value.param == name
    assert await sent(WITHOUT_LIMITS, chat("cheap", **{name: value})) == 1


@pytest.mark.parametrize("value", [1, 16000, 1.0, 10**12, None])
async def test_numbers_pass(value: Any) -> None:
    assert await sent(WITH_RATE if value == 1 else CHEAP, chat("cheap", max_tokens=value)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "N",
        "Best_Of",
        "Max_Tokens",
        "maxTokens",
        "MAX_OUTPUT_TOKENS",
        "Background",
        "Stream_Options",
        "Messages",
        "\u212a",
    ],
)
async def test_a_name_that_decides_has_one_spelling(name: str) -> None:
    """Readers in Go ignore case, and take the last of two keys."""
    request = chat("cheap", **{name: 9, "max_tokens": 5})
    if name == "\u212a":
        assert await sent(WITH_BUDGET, request) == 1
        return
    for principal in EVERYBODY_LIMITED:
        with pytest.raises(BadRequest, match="must be written"):
            await sent(principal, request)
    assert await sent(WITHOUT_LIMITS, request) == 1


@pytest.mark.parametrize("name", ["n_predict", "n_cmpl", "max_new_tokens", "candidateCount"])
async def test_another_name_for_a_bound_is_refused_under_limits(name: str) -> None:
    for principal in (WITH_BUDGET, WITH_RATE):
        with pytest.raises(Forbidden, match="Use `max_tokens` or `n`"):
            await sent(principal, chat("cheap", **{name: 9}))
    assert await sent(CHEAP, chat("cheap", **{name: 9})) == 1


@pytest.mark.parametrize(
    "options",
    ["no", [], 7, {"include_usage": "false"}, {"include_usage": 0}, {"Include_Usage": False}, {"x": "y" * 1024}],
)
async def test_stream_options_must_be_understood(options: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        await sent(WITH_RATE, chat("cheap", stream_options=options))
    assert caught.value.param == "stream_options"


@pytest.mark.parametrize("value", ["true", 2, [], {}])
@pytest.mark.parametrize("name", ["background", "store"])
async def test_switches_are_true_false_or_null(name: str, value: Any) -> None:
    with pytest.raises(BadRequest, match="true, false or null"):
        await sent(WITH_RATE, post("responses", {"model": "cheap", "input": "x", name: value}))


@pytest.mark.parametrize("path", sorted(CHECKED_ENDPOINTS))
async def test_routes_that_are_understood(path: str) -> None:
    assert await sent(CHEAP, post(path, {"model": "cheap", "input": "x"})) == 1


@pytest.mark.parametrize(
    "path",
    ["Chat/completions", "chat/Completions", "chat/completions%20", "deployments/dear/chat/completions", "messages/batches",
     "Deployments/dear/chat/completions", "openai/deployments/dear/chat/completions", "models/dear/predictions", "batches",
     "accounts/a/models/dear/completions", "realtime/client_secrets", "evals", "engines/dear", "responses/compact"],
)  # fmt: skip
async def test_other_routes_are_refused(path: str) -> None:
    for principal in (CHEAP, token_with({"models": {"cheap": {"rpm": 5}}})):
        with pytest.raises(Forbidden, match="not for this route"):
            await sent(principal, post(path, {"model": "cheap", "input": "x"}))
    assert await sent(WITHOUT_LIMITS, post(path, {"model": "cheap", "input": "x"})) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "PATCH"])
async def test_a_body_of_another_method_is_refused(method: str) -> None:
    body = b'{"model":"cheap"}'
    request = ProviderRequest(method, "chat/completions", body=body, fields=chat().fields, model="cheap")
    with pytest.raises(Forbidden):
        await sent(CHEAP, request)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "anything"), ("POST", "moderations"), ("PUT", "files/f"), ("PATCH", "x")]
)
async def test_writing_without_a_body_is_refused(method: str, path: str) -> None:
    with pytest.raises(Forbidden):
        await sent(CHEAP, ProviderRequest(method, path))
    assert await sent(WITHOUT_LIMITS, ProviderRequest(method, path)) == 1


@pytest.mark.parametrize(("query", "passes"), [
    ("", True), ("limit=2&after=a&order=asc&purpose=batch&include[]=x&include%5B%5D=y&stream=true", True), ("model=dear", False),
    ("limit=2&%6dodel=dear", False), ("Model=dear", False), ("limit=2;model=dear", False), ("x", False),
])  # fmt: skip
async def test_parameters_of_reading_requests(query: str, passes: bool) -> None:
    request = ProviderRequest("GET", "files", query=query)
    if passes:
        assert await sent(CHEAP, request) == 1
        return
    with pytest.raises(Forbidden, match="query parameter"):
        await sent(CHEAP, request)
    assert await sent(WITHOUT_LIMITS, request) == 1
