"""Aliases of models: the provider's name in requests, and the client's name in responses. Pure."""

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from gateway.core import sse
from gateway.core.json_body import JsonObject, parse_object, set_field
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse


def rename_request(request: ProviderRequest, model: str) -> ProviderRequest:
    """Returns the request with the provider's name for the model. Only JSON bodies name one.

    Raises what ``parse_object`` raises, for a request without ``fields``.
    """
    if not isinstance(request.body, bytes):
        return msgspec.structs.replace(request, body=None, fields=None, model=model)
    given = request.fields if isinstance(request.fields, JsonObject) else parse_object(request.body)
    fields = given.copy_with("model", model)
    return msgspec.structs.replace(request, body=fields.body, fields=fields, model=model)


def rename_response(response: ProviderResponse, alias: str) -> ProviderResponse:
    """Returns the response with the name that the client used, whatever dated name the provider has for the model."""
    if isinstance(response.body, bytes):
        response.body = _rename_json(response.body, alias)
    elif response.content_type.startswith(EVENT_STREAM):
        response.body = _rename_events(response.body, alias)
    return response


async def _rename_events(blocks: AsyncIterator[bytes], alias: str) -> AsyncIterator[bytes]:
    try:
        async for block in blocks:
            if b'"model"' in block:
                yield b"".join(_rename_event(event, alias) for event in sse.split_events(block))
            else:
                yield block
    finally:
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()


def _rename_event(event: bytes, alias: str) -> bytes:
    """Renames in an event whose data is on one line, as all of OpenAI's is. Any other passes as it is."""
    before, mark, rest = event.partition(b"data:")
    data = rest.rstrip(b"\r\n")
    if not mark or b"\n" in data or b"\r" in data or b'"model"' not in data:
        return event
    return before + b"data: " + _rename_json(data.strip(), alias) + rest[len(data) :]


def _rename_json(body: bytes, alias: str) -> bytes:
    """Sets ``model``, at the top level or in the ``response`` of an event of the Responses API."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "model" in fields:
            return set_field(body, "model", alias)
        if "response" in fields:
            return set_field(body, "response", msgspec.Raw(_rename_json(bytes(fields["response"]), alias)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return body
