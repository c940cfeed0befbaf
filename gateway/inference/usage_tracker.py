"""Tracks what one admitted request uses, from its reservation to its entry in the ledger.

The tracker is a state machine. The table in ``charges.py`` says what a request is charged, by the state in which it ends and the
way in which it does.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import lru_cache
from types import TracebackType
from typing import Self

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.json_body import JsonObject
from gateway.core.upstream_errors import UpstreamTimeout
from gateway.inference.charges import CHARGES, Charged, Outcome, State
from gateway.inference.models import Admitted, RequestIdentity
from gateway.inference.stream_budget import StreamBudget
from gateway.limits import presentation
from gateway.limits.algorithms import actual_charges
from gateway.limits.limiter import Limiter
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.usage import extraction
from gateway.usage.estimate import NOTHING_ESTIMATED, Estimate, estimate
from gateway.usage.generated_text import BYTES_PER_TOKEN, MAX_READ_BYTES, count_response_tokens
from gateway.usage.models import NOTHING_USED, LedgerEntry, Usage

CLIENT_GONE = 499
_UNIT_ENDPOINTS = frozenset({"audio/speech", "images/generations"})
_WITH_TWO_PARTS = frozenset({"chat", "audio", "images", "fine_tuning"})


class UsageTracker:
    """A context manager: on exit, whatever happened, the reservation is settled and the entry is recorded, once.

    ``usage`` and ``cost`` (micro-dollars) are final once the state is SETTLED.
    """

    def __init__(
        self,
        identity: RequestIdentity,
        request: ProviderRequest,
        admitted: Admitted,
        limiter: Limiter,
        record: Callable[[LedgerEntry], None],
    ) -> None:
        self._identity = identity
        self._request = request
        self._price, self._reservation, self._known_estimate, self._expected = admitted
        self._limiter = limiter
        self._record = record
        self._began = time.perf_counter()
        self._status = 200
        self._stream: extraction.StreamUsageReader | None = None
        self.state = State.ADMITTED
        self.first_byte_seconds: float | None = None
        self.usage = NOTHING_USED
        self.cost = 0
        self.is_estimated = False
        self.is_partial = False

    def headers(self) -> dict[str, str]:
        """Returns ``x-ratelimit-*`` as things stand."""
        reservation = self._reservation
        return {} if reservation is None else presentation.rate_limit_headers(reservation.charges, reservation.counters)

    def track(self, response: ProviderResponse, drops_usage: bool) -> ProviderResponse:
        """Returns the response, with a body that is counted while it passes. A whole one is settled at once.

        With ``drops_usage`` the event of a stream that only reports usage is taken out.
        """
        self._status = response.status
        body = response.body
        if isinstance(body, bytes):
            self.first_byte_seconds = time.perf_counter() - self._began
            reported = extraction.usage_of_response(body)
            self._settle(Outcome.COMPLETED, reported, 0 if reported else count_response_tokens(body))
        elif response.content_type.startswith(EVENT_STREAM):
            self.state = State.STREAMING_EVENTS
            self._stream = extraction.StreamUsageReader(drops_usage)
            response.body = self._track_events(body, self._stream)
        else:
            response.body = self._track_bytes(body, is_json="json" in response.content_type)
        return response

    def __enter__(self) -> Self:
        """Notes that the provider may be at work from now on."""
        self.state = State.SENT_FOR_STREAM if self._request.stream else State.SENT
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = error.status if isinstance(error, GatewayError) else _status_of(error)
        try:
            if self.state is not State.SETTLED:
                stream = self._stream
                reported, tokens = (stream.usage, stream.text_tokens) if stream is not None else (None, 0)
                self._settle(_outcome_of(error), reported, tokens)
        finally:
            if self.state is not State.SETTLED:
                self._close(NOTHING_USED, is_estimated=False)
            self._record(self._entry())

    async def _track_events(
        self, blocks: AsyncIterator[bytes], stream: extraction.StreamUsageReader
    ) -> AsyncGenerator[bytes, None]:
        budget = self._stream_budget()
        try:
            async for block in blocks:
                self._mark_first_byte()
                passed = stream.feed(block)
                if budget is not None and (tokens := stream.text_tokens) >= budget.next_check:
                    await budget.check(stream.usage, tokens)
                if passed:
                    yield passed
            self._settle(Outcome.COMPLETED, stream.usage, stream.text_tokens)
        finally:
            if isinstance(blocks, AsyncGenerator):
                await blocks.aclose()

    async def _track_bytes(self, chunks: AsyncIterator[bytes], is_json: bool) -> AsyncGenerator[bytes, None]:
        kept: list[bytes] = []
        size = 0
        try:
            async for chunk in chunks:
                self._mark_first_byte()
                self.state = State.STREAMING_BYTES
                size += len(chunk)
                if is_json and size <= MAX_READ_BYTES:
                    kept.append(chunk)
                yield chunk
            body = b"".join(kept) if size <= MAX_READ_BYTES else b""
            usage = extraction.usage_of_response(body) if body else None
            tokens = count_response_tokens(body) if body else -(-size // BYTES_PER_TOKEN)
            self._settle(Outcome.COMPLETED, usage, tokens)
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    def _mark_first_byte(self) -> None:
        if self.first_byte_seconds is None:
            self.first_byte_seconds = time.perf_counter() - self._began

    def _stream_budget(self) -> StreamBudget | None:
        reservation, price = self._reservation, self._price
        if reservation is None or price is None or not reservation.has_budget:
            return None
        return StreamBudget(self._limiter, reservation, price, self._estimate())

    def _settle(self, outcome: Outcome, reported: Usage | None, tokens: int) -> None:
        """Settles by the table. ``tokens`` is the number of completion tokens, counted by their text."""
        charged = CHARGES[self.state][outcome]
        self.is_partial = charged in (Charged.PROMPT, Charged.RESERVED, Charged.SO_FAR)
        # Only a request that makes something uses something: what is read again was counted when it was made.
        is_counted = self._request.method == "POST" or self._request.body is not None
        if charged is Charged.NOTHING or not is_counted:
            self._close(NOTHING_USED, is_estimated=False)
        elif charged is Charged.RESERVED:
            self._close_as_reserved()
        elif reported is not None:
            if charged is Charged.SO_FAR:
                reported = extraction.count_so_far(reported, 0, tokens)
            self._close(self._with_units(reported), is_estimated=False)
        else:
            self._close_as_estimated(tokens)

    def _close_as_estimated(self, tokens: int) -> None:
        """Closes with the estimated prompt and the counted completion, where the provider does not say what was used."""
        if self._request.fields is None or (found := self._estimate()) is NOTHING_ESTIMATED:
            self._close(NOTHING_USED, is_estimated=False)
            return
        usage = Usage(found.prompt, tokens if found.has_completion else 0)
        self._close(self._with_units(usage), is_estimated=True)

    def _close_as_reserved(self) -> None:
        """Closes with the longest response that the request allows, and with no more money than was reserved."""
        if self._request.fields is None or (found := self._estimate()) is NOTHING_ESTIMATED:
            self._close(NOTHING_USED, is_estimated=False)
            return
        usage = self._expected or Usage(found.prompt, found.completion_or(0))
        reservation, price = self._reservation, self._price
        cost = None
        if price is not None and reservation is not None and reservation.has_budget:
            cost = min(price.cost(found.expected(price.context_window)), reservation.reserved_money)
        self._close(self._with_units(usage), is_estimated=True, cost=cost)

    def _with_units(self, usage: Usage) -> Usage:
        """Returns the usage with the units besides tokens by which some endpoints are priced."""
        if self._request.path not in _UNIT_ENDPOINTS:
            return usage
        found = self._estimate()
        return msgspec.structs.replace(usage, images=found.images, characters=found.characters)

    def _estimate(self) -> Estimate:
        """Returns the estimate that the admission was based on. Without one it is made now: it reads the whole prompt."""
        if self._known_estimate is None:
            fields = self._request.fields
            self._known_estimate = estimate(self._request.path, fields if isinstance(fields, JsonObject) else None)
        return self._known_estimate

    def _close(self, usage: Usage, is_estimated: bool, cost: int | None = None) -> None:
        self.state = State.SETTLED
        self.usage = usage
        self.is_estimated = is_estimated
        if cost is None:
            cost = 0 if self._price is None or usage is NOTHING_USED else self._price.cost(usage)
        self.cost = cost
        if self._reservation is not None:
            charges = self._reservation.charges
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._limiter.settle(self._reservation, actual_charges(charges, tokens, self.cost))

    def _entry(self) -> LedgerEntry:
        identity, first = self._identity, self.first_byte_seconds
        return LedgerEntry(
            request_id=identity.request_id,
            at=identity.at,
            token_id=identity.token_id,
            owner=identity.owner,
            model=identity.model,
            deployment=identity.deployment,
            endpoint=_endpoint(self._request.path),
            status=self._status,
            usage=self.usage,
            cost=self.cost,
            duration_ms=int((time.perf_counter() - self._began) * 1000),
            first_byte_ms=None if first is None else int(first * 1000),
            partial=self.is_partial,
            estimated=self.is_estimated,
        )


@lru_cache(maxsize=256)
def _endpoint(path: str) -> str:
    """Returns the path without the ids in it: what reports are grouped by must not grow with every file."""
    first, _, rest = path.partition("/")
    second = rest.partition("/")[0]
    return f"{first}/{second}"[:64] if first in _WITH_TWO_PARTS and second else first[:64]


def _outcome_of(error: BaseException | None) -> Outcome:
    match error:
        case UpstreamTimeout():
            return Outcome.UPSTREAM_TIMEOUT
        case asyncio.CancelledError():
            return Outcome.CLIENT_GONE
        case _:
            return Outcome.FAILED


def _status_of(error: BaseException) -> int:
    return CLIENT_GONE if isinstance(error, asyncio.CancelledError | ConnectionError) else 500
