"""The use case: which backend answers a request, under which name of the model. Knows no HTTP server."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from gateway import sse
from gateway.auth.principal import Principal
from gateway.backends.base import EVENT_STREAM, Answer, Backend, BackendRequest
from gateway.errors import ModelNotFound
from gateway.schema import with_field


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
        return _renamed_answer(answer, real, request.model)

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
    body = with_field(request.body, "model", model) if isinstance(request.body, bytes) else request.body
    fields = {**(request.fields or {}), "model": model}
    return msgspec.structs.replace(request, body=body, fields=fields, model=model)


def _renamed_answer(answer: Answer, real: str, alias: str) -> Answer:
    """Clients see the name that they used."""
    if isinstance(answer.body, bytes):
        answer.body = _renamed_json(answer.body, real, alias)
    elif answer.content_type.startswith(EVENT_STREAM):
        answer.body = _renamed_events(answer.body, real, alias)
    return answer


async def _renamed_events(blocks: AsyncIterator[bytes], real: str, alias: str) -> AsyncIterator[bytes]:
    needle = msgspec.json.encode(real)
    async for block in blocks:
        if needle not in block:
            yield block
            continue
        yield b"".join(_renamed_event(event, real, alias) if needle in event else event for event in sse.events(block))


def _renamed_event(event: bytes, real: str, alias: str) -> bytes:
    """Events whose data lies on one line, as all of OpenAI's does; any other passes as it is."""
    before, mark, rest = event.partition(b"data:")
    data = rest.rstrip(b"\r\n")
    if not mark or b"\n" in data or b"\r" in data:
        return event
    return before + b"data: " + _renamed_json(data.strip(), real, alias) + rest[len(data) :]


def _renamed_json(body: bytes, real: str, alias: str) -> bytes:
    """Set ``model``, at the top or in the ``response`` of a Responses event, where it holds the real name."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "model" in fields and msgspec.json.decode(fields["model"]) == real:
            return with_field(body, "model", alias)
        if "response" in fields:
            inner = bytes(fields["response"])
            renamed = _renamed_json(inner, real, alias)
            return body if renamed == inner else body.replace(inner, renamed, 1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return body
