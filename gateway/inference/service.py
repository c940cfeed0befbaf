"""The use case of a request: admit it, take it to a backend under the model's real name, meter the answer. Knows no HTTP
server."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.auth.principal import Principal
from gateway.core import sse
from gateway.core.errors import ModelNotFound, StoreUnavailable
from gateway.core.json_body import JsonObject, parse_object, set_field
from gateway.inference.admission import Admission
from gateway.inference.usage_tracker import UsageTracker, Whose
from gateway.providers.base import EVENT_STREAM, Provider, ProviderRequest, ProviderResponse
from gateway.usage.ledger import Ledger

_CAN_TELL_USAGE = frozenset({"chat/completions", "completions"})
"""Endpoints whose streams report usage only if they are asked to."""


class Backends(NamedTuple):
    """Who answers, and who answers test tokens."""

    real: Provider
    test: Provider


class Origin(NamedTuple):
    """Where a request comes from: its id, and how many seconds its client will wait, if it says so."""

    request_id: str
    max_wait: float | None = None


class MeteringRules(NamedTuple):
    """``clock`` in seconds since the epoch; ``asks_for_usage``: whether streams are asked for what they used; ``shown``: how
    a model that a client names is written down."""

    clock: Callable[[], float]
    asks_for_usage: bool
    shown: Callable[[str], str]


class Inference:
    """Admits requests, takes them to a backend, meters the answers, and hides aliases on the way back."""

    def __init__(
        self,
        backends: Backends,
        aliases: Mapping[str, str],
        admission: Admission,
        ledger: Ledger,
        rules: MeteringRules,
    ) -> None:
        self._backend, self._test_backend = backends
        self._aliases = aliases
        self._admission = admission
        self._ledger = ledger
        self._rules = rules

    def backend_for(self, principal: Principal) -> Provider:
        return self._test_backend if principal.is_test else self._backend

    async def admit(self, principal: Principal, request: ProviderRequest, origin: Origin) -> UsageTracker:
        """Raises ModelNotFound for a model that this caller may not use, and what the admission raises."""
        if request.model is not None and not principal.may_use(request.model):
            raise ModelNotFound(request.model)
        if self._ledger.is_full:
            raise StoreUnavailable("What is used cannot be written down at the moment.")
        granted = await self._admission.admit(principal, request, origin.max_wait)
        held = principal.secret_match
        whose = Whose(
            origin.request_id,
            principal.token_id or principal.name,
            held.record.owner if held else None,
            request.model and self._rules.shown(request.model),
            self.backend_for(principal).name,
            self._rules.clock(),
        )
        return UsageTracker(whose, request, granted, self._admission.limiter, self._ledger.record)

    async def run(
        self, principal: Principal, request: ProviderRequest, usage_tracker: UsageTracker
    ) -> ProviderResponse:
        """The backend's answer, metered by ``usage_tracker``. Raises whatever the backend raises."""
        backend = self.backend_for(principal)
        asking, drops_usage = _asking_for_usage(request) if self._rules.asks_for_usage else (request, False)
        usage_tracker.sent()
        real = asking.model and self._aliases.get(asking.model, asking.model)
        if real is None or real == asking.model or backend is self._test_backend:
            return usage_tracker.metered(await backend.send(asking), drops_usage)
        answer = usage_tracker.metered(await backend.send(_renamed_request(asking, real)), drops_usage)
        return _renamed_answer(answer, asking.model or real)

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


def _asking_for_usage(request: ProviderRequest) -> tuple[ProviderRequest, bool]:
    """The request with the wish for a usage chunk, and whether the client does not have that wish."""
    fields = request.fields
    if not request.stream or request.path not in _CAN_TELL_USAGE or not isinstance(fields, JsonObject):
        return request, False
    options = fields.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return request, False  # the upstream shall say what is wrong with it
    if options and options.get("include_usage"):
        return request, False  # also a 1, which some upstreams take for a yes
    asking = fields.copy_with("stream_options", {**(options or {}), "include_usage": True})
    return msgspec.structs.replace(request, body=asking.body, fields=asking), True


def _renamed_request(request: ProviderRequest, model: str) -> ProviderRequest:
    """Only JSON bodies name a model."""
    fields = parse_object(set_field(request.body, "model", model)) if isinstance(request.body, bytes) else None
    return msgspec.structs.replace(request, body=fields and fields.body, fields=fields, model=model)


def _renamed_answer(answer: ProviderResponse, alias: str) -> ProviderResponse:
    """Clients see the name that they used, whatever dated name the upstream has for it."""
    if isinstance(answer.body, bytes):
        answer.body = _renamed_json(answer.body, alias)
    elif answer.content_type.startswith(EVENT_STREAM):
        answer.body = _renamed_events(answer.body, alias)
    return answer


async def _renamed_events(blocks: AsyncIterator[bytes], alias: str) -> AsyncIterator[bytes]:
    try:
        async for block in blocks:
            if b'"model"' in block:
                yield b"".join(_renamed_event(event, alias) for event in sse.split_events(block))
            else:
                yield block
    finally:
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()


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
            return set_field(body, "model", alias)
        if "response" in fields:
            return set_field(body, "response", msgspec.Raw(_renamed_json(bytes(fields["response"]), alias)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return body
