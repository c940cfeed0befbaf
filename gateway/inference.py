"""The use case: which backend answers a request, under which name of the model. Knows no HTTP server."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from gateway import sse
from gateway.auth.principal import Principal
from gateway.backends.base import EVENT_STREAM, Answer, Backend, BackendRequest
from gateway.errors import ModelNotFound
from gateway.schema import read_object, with_field


class Inference:
    """Takes admitted requests to a backend and hides aliases on the way back."""

    def __init__(self, backend: Backend, test_backend: Backend, aliases: Mapping[str, str]) -> None:
        self._backend = backend
        self._test_backend = test_backend
        self._aliases = aliases

    def backend_for(self, principal: Principal) -> Backend:
        return self._test_backend if principal.is_test else self._backend

    async def run(self, principal: Principal, request: BackendRequest) -> Answer:
        """Raises ModelNotFound for a model that this caller may not use, and whatever the backend raises."""
        backend = self.backend_for(principal)
        if request.model is None:
            return await backend.send(request)
        if not principal.may_use(request.model):
            raise ModelNotFound(request.model)
        real = self._aliases.get(request.model, request.model)
        if real == request.model or backend is self._test_backend:
            return await backend.send(request)
        answer = await backend.send(_renamed_request(request, real))
        return _renamed_answer(answer, request.model)

    async def models(self, principal: Principal) -> list[dict[str, Any]]:
        """The models that this caller may use, aliases among them."""
        found = await self.backend_for(principal).models()
        known = {model["id"]: model for model in found}
        for alias, real in self._aliases.items():
            created = known.get(real, {}).get("created", 0)
            known[alias] = {"id": alias, "object": "model", "created": created, "owned_by": "gateway"}
        return [model for name, model in known.items() if principal.may_use(name)]

    async def model(self, principal: Principal, name: str) -> dict[str, Any]:
        """Raises ModelNotFound."""
        for model in await self.models(principal):
            if model["id"] == name:
                return model
        raise ModelNotFound(name)


def _renamed_request(request: BackendRequest, model: str) -> BackendRequest:
    """Only JSON bodies name a model."""
    fields = read_object(with_field(request.body, "model", model)) if isinstance(request.body, bytes) else None
    return msgspec.structs.replace(request, body=fields and fields.body, fields=fields, model=model)


def _renamed_answer(answer: Answer, alias: str) -> Answer:
    """Clients see the name that they used, whatever dated name the upstream has for it."""
    if isinstance(answer.body, bytes):
        answer.body = _renamed_json(answer.body, alias)
    elif answer.content_type.startswith(EVENT_STREAM):
        answer.body = _renamed_events(answer.body, alias)
    return answer


async def _renamed_events(blocks: AsyncIterator[bytes], alias: str) -> AsyncIterator[bytes]:
    async for block in blocks:
        if b'"model"' in block:
            yield b"".join(_renamed_event(event, alias) for event in sse.events(block))
        else:
            yield block


def _renamed_event(event: bytes, alias: str) -> bytes:
    """Events whose data lies on one line, as all of OpenAI's does; any other passes as it is."""
    before, mark, rest = event.partition(b"data:")
    data = rest.rstrip(b"\r\n")
    if not mark or b"\n" in data or b"\r" in data or b'"model"' not in data:
        return event
    return before + b"data: " + _renamed_json(data.strip(), alias) + rest[len(data) :]


def _renamed_json(body: bytes, alias: str) -> bytes:
    """Set ``model``, at the top or in the ``response`` of a Responses event."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "model" in fields:
            return with_field(body, "model", alias)
        if "response" in fields:
            return with_field(body, "response", msgspec.Raw(_renamed_json(bytes(fields["response"]), alias)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return body
