"""Tracks what one admitted request uses, from its reservation to its entry in the ledger.

The tracker is a state machine. Its table says, for each state in which a request can end, and each way in which it can end
there, what the request is charged.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Self

from gateway.core.errors import GatewayError, UpstreamTimeout
from gateway.core.json_body import JsonObject
from gateway.inference.models import Admitted, RequestIdentity
from gateway.inference.stream_budget import StreamBudget
from gateway.limits import presentation
from gateway.limits.algorithms import actual_charges
from gateway.limits.limiter import Limiter
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.usage import extraction
from gateway.usage.estimate import BYTES_PER_TOKEN, Estimate, estimate
from gateway.usage.models import NOTHING_USED, LedgerEntry, Usage

CLIENT_GONE = 499
MAX_READ_BYTES = 4 * 1024 * 1024
"""A body that passes in chunks is not kept beyond this size to read its usage."""
_WITH_TWO_PARTS = frozenset({"chat", "audio", "images", "fine_tuning"})


class State(Enum):
    """How far a request has come."""

    ADMITTED = "admitted"
    """Capacity is reserved, nothing has been sent."""
    SENT = "sent"
    """The provider may be at work. No byte of the body has come."""
    STREAMING_EVENTS = "streaming events"
    """An event stream has begun. Its usage and its chunks of text are counted."""
    STREAMING_BYTES = "streaming bytes"
    """Another body passes in chunks."""
    SETTLED = "settled"
    """What was used is known, and the reservation is settled."""


class Outcome(Enum):
    """How a request ends."""

    COMPLETED = "completed"
    """The response came to its end."""
    CLIENT_GONE = "client gone"
    """The client left, or the gateway ended the request early."""
    UPSTREAM_TIMEOUT = "upstream timeout"
    FAILED = "failed"
    """Anything else, also a response that was not read to its end."""


class Charged(Enum):
    """What a request is charged."""

    NOTHING = "nothing"
    PROMPT = "the estimated prompt"
    """The provider was at work and did not say how far it got: it has read the prompt at least."""
    SO_FAR = "what was reported or counted so far"
    ALL = "what was reported, or else an estimate"


_NOTHING = dict.fromkeys(Outcome, Charged.NOTHING)

CHARGES: Mapping[State, Mapping[Outcome, Charged]] = MappingProxyType(
    {
        State.ADMITTED: _NOTHING,
        State.SENT: {
            **_NOTHING,
            Outcome.COMPLETED: Charged.ALL,
            Outcome.CLIENT_GONE: Charged.PROMPT,
            Outcome.UPSTREAM_TIMEOUT: Charged.PROMPT,
        },
        State.STREAMING_EVENTS: {**dict.fromkeys(Outcome, Charged.SO_FAR), Outcome.COMPLETED: Charged.ALL},
        State.STREAMING_BYTES: {**dict.fromkeys(Outcome, Charged.PROMPT), Outcome.COMPLETED: Charged.ALL},
    }
)
"""By the state in which a request ends, and the way in which it does. What is charged PROMPT or SO_FAR is recorded as partial."""


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
        self._price, self._reservation, self._known_estimate = admitted
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

    def mark_sent(self) -> None:
        """Notes that the provider may be at work from now on."""
        self.state = State.SENT

    def track(self, response: ProviderResponse, drops_usage: bool) -> ProviderResponse:
        """Returns the response, with a body that is counted while it passes. A whole one is settled at once.

        With ``drops_usage`` the event of a stream that only reports usage is taken out.
        """
        self._status = response.status
        body = response.body
        if isinstance(body, bytes):
            self.first_byte_seconds = time.perf_counter() - self._began
            self._settle(Outcome.COMPLETED, extraction.usage_of_response(body), -(-len(body) // BYTES_PER_TOKEN))
        elif response.content_type.startswith(EVENT_STREAM):
            self.state = State.STREAMING_EVENTS
            self._stream = extraction.StreamUsageReader(drops_usage)
            response.body = self._track_events(body, self._stream)
        else:
            response.body = self._track_bytes(body, is_json="json" in response.content_type)
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = error.status if isinstance(error, GatewayError) else _status_of(error)
        try:
            if self.state is not State.SETTLED:
                reported, pieces = (
                    (self._stream.usage, self._stream.text_chunks) if self._stream is not None else (None, 0)
                )
                self._settle(_outcome_of(error), reported, pieces)
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
                if budget is not None and stream.text_chunks >= budget.next_check:
                    await budget.check(stream.usage, stream.text_chunks)
                if passed:
                    yield passed
            self._settle(Outcome.COMPLETED, stream.usage, stream.text_chunks)
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
            usage = extraction.usage_of_response(b"".join(kept)) if size <= MAX_READ_BYTES else None
            self._settle(Outcome.COMPLETED, usage, 0)
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

    def _settle(self, outcome: Outcome, reported: Usage | None, pieces: int) -> None:
        """Settles by the table. ``pieces`` is the number of chunks of text, about as many as there are tokens."""
        charged = CHARGES[self.state][outcome]
        self.is_partial = charged in (Charged.PROMPT, Charged.SO_FAR)
        if charged is Charged.NOTHING:
            self._close(NOTHING_USED, is_estimated=False)
            return
        # Only a request that makes something uses something: what is read again was counted when it was made.
        is_counted = self._request.method == "POST"
        is_estimated = reported is None and is_counted and self._request.fields is not None
        used = self._guess(pieces) if is_estimated else reported if is_counted else None
        self._close(used or NOTHING_USED, is_estimated)

    def _guess(self, pieces: int) -> Usage:
        """Returns what was used, where the provider does not say."""
        found = self._estimate()
        return Usage(found.prompt, pieces if found.has_completion else 0)

    def _estimate(self) -> Estimate:
        """Returns the estimate that the admission was based on. Without one it is made now: it reads the whole prompt."""
        if self._known_estimate is None:
            fields = self._request.fields
            self._known_estimate = estimate(self._request.path, fields if isinstance(fields, JsonObject) else None)
        return self._known_estimate

    def _close(self, usage: Usage, is_estimated: bool) -> None:
        self.state = State.SETTLED
        self.usage = usage
        self.is_estimated = is_estimated
        self.cost = 0 if self._price is None or usage is NOTHING_USED else self._price.cost(usage)
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
