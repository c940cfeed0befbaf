"""Answers with what it was sent, offline and always the same, so that clients can be tried and tested without a model.

A model's token is a word here. ``n``, ``max_tokens`` (and its newer names), ``stop`` and
``stream_options.include_usage`` do what OpenAI's reference says.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.errors import GatewayError, MethodNotAllowed, NotFound
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderConfig, ProviderRequest, ProviderResponse
from gateway.providers.echo import embeddings, responses
from gateway.providers.echo import text as echo_text
from gateway.providers.echo.text import Choice, Reply

CREATED = 1_700_000_000
"""The time of creation of every response, in seconds since the epoch: a constant, so that equal requests get equal bytes."""


_METHODS = {
    **dict.fromkeys(("chat/completions", "completions", "embeddings", "responses"), ("POST",)),
    "models": ("GET", "HEAD"),
}
"""What a request with another method is told. The gateway itself answers with the list of models."""


def create(_config: ProviderConfig) -> Provider:
    """Returns the echo. It needs no setting."""
    return EchoProvider()


class EchoProvider:
    """Answers chat completions, completions, embeddings and responses."""

    name = "echo"

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        """Returns the echo. Raises BadRequest for invalid fields, MethodNotAllowed, and NotFound for other endpoints."""
        fields = dict(request.fields or {})
        match request.path if request.method == "POST" else "":
            case "chat/completions":
                return _completion_response(request, fields, _Chat(fields))
            case "completions":
                return _completion_response(request, fields, _Completion(fields))
            case "embeddings":
                return _json_response(embeddings.response(fields))
            case "responses":
                return _responses_response(request, fields)
        raise _not_served(request)

    async def models(self) -> list[dict[str, Any]]:
        """Returns the one model, ``echo``. Requests may name any other."""
        return [{"id": "echo", "object": "model", "created": CREATED, "owned_by": "gateway"}]

    async def aclose(self) -> None:
        """Does nothing: the echo holds nothing."""


class _Chat:
    """Renders a reply as a chat completion, whole or in chunks."""

    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, fields: dict[str, Any]) -> None:
        self.reply = echo_text.reply(echo_text.chat_prompt(fields), fields)

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}

    def first_deltas(self) -> list[Any]:
        return [{"role": "assistant", "content": "", "refusal": None}]

    def delta(self, text: str) -> dict[str, Any]:
        return {"content": text}

    def chunk_choice(self, index: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


class _Completion:
    """Renders a reply as a legacy completion, whole or in chunks."""

    id_prefix = "cmpl"
    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, fields: dict[str, Any]) -> None:
        self.reply = echo_text.reply(echo_text.completion_prompt(fields), fields)

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {"index": index, "text": choice.text, "logprobs": None, "finish_reason": choice.finish_reason}

    def first_deltas(self) -> list[Any]:
        return []

    def delta(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def chunk_choice(self, index: int, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": delta.get("text", ""), "logprobs": None, "finish_reason": finish}


def _not_served(request: ProviderRequest) -> GatewayError:
    path = f"/v1/{request.path}"
    if (allowed := _METHODS.get(request.path)) is not None:
        return MethodNotAllowed(request.method, path, allowed)
    return NotFound(f"The echo backend has no {path}. Set GATEWAY_UPSTREAM_URL to use an upstream that has.")


def _responses_response(request: ProviderRequest, fields: dict[str, Any]) -> ProviderResponse:
    reply = echo_text.reply(echo_text.responses_prompt(fields), fields)
    identifier = _identifier("resp", request)
    if request.stream:
        return _event_stream_response(responses.stream(identifier, CREATED, fields, reply))
    return _json_response(responses.response(identifier, CREATED, fields, reply))


def _completion_response(
    request: ProviderRequest, fields: dict[str, Any], form: _Chat | _Completion
) -> ProviderResponse:
    identifier = _identifier(form.id_prefix, request)
    head = {"id": identifier, "object": form.object, "created": CREATED, "model": fields["model"]}
    if request.stream:
        return _event_stream_response(
            _stream({**head, "object": form.chunk_object}, form, echo_text.wants_usage(fields))
        )
    choices = [form.choice(index, choice) for index, choice in enumerate(form.reply.choices)]
    return _json_response({**head, "choices": choices, "usage": _usage(form.reply)})


async def _stream(head: dict[str, Any], form: _Chat | _Completion, with_usage: bool) -> AsyncIterator[bytes]:
    usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def event(choices: list[dict[str, Any]]) -> bytes:
        return sse.encode_event(msgspec.json.encode({**head, "choices": choices, **usage}))

    for index, choice in enumerate(form.reply.choices):
        for delta in form.first_deltas():
            yield event([form.chunk_choice(index, delta, None)])
        for token in choice.tokens:
            yield event([form.chunk_choice(index, form.delta(token), None)])
        yield event([form.chunk_choice(index, {}, choice.finish_reason)])
    if with_usage:
        usage["usage"] = _usage(form.reply)
        yield event([])
    yield sse.DONE


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


def _identifier(prefix: str, request: ProviderRequest) -> str:
    body = request.body if isinstance(request.body, bytes) else b""
    return f"{prefix}-echo{hashlib.sha256(body).hexdigest()[:24]}"


def _json_response(content: dict[str, Any]) -> ProviderResponse:
    return ProviderResponse(200, JSON, msgspec.json.encode(content))


def _event_stream_response(stream: AsyncIterator[bytes]) -> ProviderResponse:
    return ProviderResponse(200, EVENT_STREAM, stream)
