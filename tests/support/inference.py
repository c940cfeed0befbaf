"""The use case of inference without a server: real counters, real prices, a ledger in a list, and providers by script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.auth.principal import Principal
from gateway.core.json_body import parse_object
from gateway.core.threads import Threads
from gateway.inference.admission import Admission, AdmissionRules
from gateway.inference.models import InferenceRequest
from gateway.inference.service import Inference, UsageRules
from gateway.limits.config import read_limits
from gateway.limits.limiter import Limiter
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderRequest, ProviderResponse
from gateway.routing.catalog import Catalog
from gateway.tokens.models import Role, SecretMatch, TokenRecord
from gateway.usage.models import LedgerEntry
from gateway.usage.pricing.prices import load_prices, packaged_prices, read_price_table
from gateway.usage.running import RunningRequests
from gateway.usage.stores.memory import MemoryUsageStore
from tests.support.tokens import Clock

LIMITS = {"rpm": 100, "tpm": 100_000, "max_parallel": 5, "budget": "1"}
PRICES = {"m": {"input": 1, "output": 10}}
HELLO = [{"role": "user", "content": "Hello there"}]


@dataclass
class ListLedger:
    """A ledger whose entries can be read."""

    entries: list[LedgerEntry] = field(default_factory=list)
    is_full: bool = False
    store: MemoryUsageStore = field(default_factory=MemoryUsageStore)
    """Has what requests that still run have used."""

    def __post_init__(self) -> None:
        self.running = RunningRequests(self.store, Threads("ledger"), lambda: None)

    def record(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)


class ScriptedProvider:
    """Answers as the test says, and keeps what it was sent."""

    name = "scripted"

    def __init__(self, act: Callable[[ProviderRequest], Awaitable[ProviderResponse]]) -> None:
        self.act = act
        self.requests: list[ProviderRequest] = []
        self.closed = 0

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        response = await self.act(request)
        response.close = self._close
        return response

    def _close(self) -> None:
        self.closed += 1

    async def models(self) -> list[dict[str, Any]]:
        return [{"id": name, "object": "model", "created": 5, "owned_by": "me"} for name in ("real", "gpt-4o")]

    async def aclose(self) -> None: ...


def answering(body: Any, content_type: str = JSON) -> ScriptedProvider:
    """A provider with one answer: bytes, or a function that returns an iterator of chunks."""

    async def act(_request: ProviderRequest) -> ProviderResponse:
        return ProviderResponse(200, content_type, body() if callable(body) else body)

    return ScriptedProvider(act)


def streaming(
    *blocks: bytes, error: BaseException | None = None, hangs: bool = False, content_type: str = EVENT_STREAM
) -> ScriptedProvider:
    """A provider that streams blocks, and then ends, raises or sends nothing more."""

    async def stream() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block
        if error is not None:
            raise error
        if hangs:
            await asyncio.Event().wait()

    return answering(stream, content_type)


def failing(error: BaseException) -> ScriptedProvider:
    async def act(_request: ProviderRequest) -> ProviderResponse:
        raise error

    return ScriptedProvider(act)


def token_with(
    limits: Mapping[str, Any] | None = None, prefix: str = "sk-abcdefghijk", models: tuple[str, ...] | None = None
) -> Principal:
    """The principal of a token of Ann's."""
    record = TokenRecord(
        id="tok_1", name="t", prefix=prefix, hash="0" * 64, created_at=0, owner="ann@example.com", role=Role.MEMBER,
        models=models, limits=read_limits(limits),
    )  # fmt: skip
    return Principal.of(SecretMatch(record, None))


def chat(model: str = "m", **fields: Any) -> ProviderRequest:
    """A chat request as the endpoint makes it."""
    return post("chat/completions", {"model": model, "messages": HELLO, **fields})


def post(path: str, content: Mapping[str, Any] | bytes) -> ProviderRequest:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    fields = parse_object(body)
    return ProviderRequest(
        "POST", path, body=body, fields=fields, model=fields.get("model"), stream=fields.get("stream") is True
    )


@dataclass
class InferenceSetup:
    """A use case and everything behind it. ``received`` is what the client has received of the last response."""

    inference: Inference
    admission: Admission
    ledger: ListLedger
    refusals: list[str]
    clock: Clock
    received: list[bytes] = field(default_factory=list)

    async def respond(
        self, principal: Principal, request: ProviderRequest, request_id: str = "req_1"
    ) -> ProviderResponse:
        """Sends a request and reads its response to the end. Raises what it was refused or aborted with."""
        self.received = []
        async with self.inference.open(principal, InferenceRequest(request_id, request, 0)) as response:
            if isinstance(response.body, bytes):
                self.received.append(response.body)
            else:
                async for chunk in response.body:
                    self.received.append(chunk)
                    await asyncio.sleep(0)
        return response

    @property
    def body(self) -> bytes:
        return b"".join(self.received)

    async def counters(self, principal: Principal) -> dict[str, tuple[int, int]]:
        """What is used and reserved under each limit, by its kind. Money in micro-dollars."""
        found = await self.admission.current_usage(principal.limits)
        return {limit.kind.value: (limit.used(counter), counter.reserved) for limit, counter in found}


def make_inference(
    provider: Provider,
    *,
    test_provider: Provider | None = None,
    aliases: Mapping[str, str] | None = None,
    prices: object = None,
    asks_for_usage: bool = True,
    queue_seconds: float = 0,
) -> InferenceSetup:
    clock, counters, ledger = Clock(), MemoryCounterStore(), ListLedger()
    refusals: list[str] = []
    catalog = Catalog(
        provider,
        test_provider or provider,
        aliases or {},
        load_prices(packaged_prices(), read_price_table(prices or {})),
    )
    admission = Admission(Limiter(counters, clock, 100), counters, AdmissionRules(1000, queue_seconds), refusals.append)
    inference = Inference(catalog, admission, ledger, UsageRules(clock, asks_for_usage, str))  # type: ignore[arg-type]
    return InferenceSetup(inference, admission, ledger, refusals, clock)
