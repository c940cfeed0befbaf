"""One admitted request, from its reservation to the line in the ledger. It is a context manager: whatever happens within it,
what was reserved is settled, and what was used is written down, once."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self

from gateway.core.errors import GatewayError, QuotaExceeded, StoreUnavailable, UpstreamTimeout
from gateway.core.json_body import JsonObject
from gateway.core.money import format_usd
from gateway.limits import presentation
from gateway.limits.algorithms import BudgetWindow
from gateway.limits.limiter import Limiter
from gateway.limits.matching import actual_charges
from gateway.limits.store import CounterStoreUnavailable, Reservation
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.usage import extraction
from gateway.usage.estimate import BYTES_PER_TOKEN, Estimate, estimate
from gateway.usage.models import NOTHING_USED, LedgerEntry, Usage
from gateway.usage.pricing.prices import Price

CLIENT_GONE = 499
MAX_READ_BYTES = 4 * 1024 * 1024
"""Of an answer that passes in pieces: longer ones are not kept to read their usage."""
_LOOK_EVERY = 32
"""Pieces of a stream between two looks at the money that is left for it."""
_WITH_TWO_PARTS = frozenset({"chat", "audio", "images", "fine_tuning"})


class Granted(NamedTuple):
    """What the admission has decided. ``price`` is None where nobody knows it, ``reservation`` where nothing is limited."""

    price: Price | None
    reservation: Reservation | None


class Whose(NamedTuple):
    """Who is charged, under which id, for which model from where; ``at`` in seconds since the epoch."""

    request_id: str
    token_id: str
    owner: str | None
    model: str | None
    deployment: str
    at: float


class UsageTracker:
    """What is known of the request so far. ``usage`` and ``cost`` (micro-dollars) are final once it is settled."""

    def __init__(
        self,
        whose: Whose,
        request: ProviderRequest,
        held: Granted,
        limiter: Limiter,
        record: Callable[[LedgerEntry], None],
    ) -> None:
        self._whose = whose
        self._request = request
        self._price, self._reservation = held
        self._limiter = limiter
        self._record = record
        self._began = time.perf_counter()
        self._status = 200
        self._meter: extraction.StreamUsageReader | None = None
        self._is_settled = False
        self._is_sent = False
        self._estimated: Estimate | None = None
        self.first_byte_seconds: float | None = None
        self.usage = NOTHING_USED
        self.cost = 0
        self.is_estimated = False
        self.is_partial = False

    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*``, as things stand."""
        held = self._reservation
        return {} if held is None else presentation.rate_limit_headers(held.charges, held.counters)

    def sent(self) -> None:
        """From here on the upstream may be at work."""
        self._is_sent = True

    def metered(self, answer: ProviderResponse, drops_usage: bool) -> ProviderResponse:
        """The same answer; what passes is counted. A whole one is settled before the client sees it."""
        self._status = answer.status
        body = answer.body
        if isinstance(body, bytes):
            self.first_byte_seconds = time.perf_counter() - self._began
            self._settle(extraction.usage_of_response(body), -(-len(body) // BYTES_PER_TOKEN))
        elif answer.content_type.startswith(EVENT_STREAM):
            self._meter = extraction.StreamUsageReader(drops_usage)
            answer.body = self._stream(body, self._meter)
        else:
            answer.body = self._pieces(body, is_json="json" in answer.content_type)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = error.status if isinstance(error, GatewayError) else _status_of(error)
        try:
            if not self._is_settled:
                self._settle_what_is_known(error)
        finally:
            if not self._is_settled:
                self._close(NOTHING_USED, is_estimated=False)
            self._record(self._entry())

    def _settle_what_is_known(self, error: BaseException | None) -> None:
        """The answer did not come to its end, or there was none."""
        if self._meter is not None:
            self.is_partial = True
            self._settle(self._meter.usage, self._meter.text_chunks)
        elif self.first_byte_seconds is not None or (
            self._is_sent and isinstance(error, UpstreamTimeout | asyncio.CancelledError)
        ):
            # The upstream was at work and did not say how far it got: the prompt at least was read.
            self.is_partial = True
            self._settle(None, 0)
        else:
            self._close(NOTHING_USED, is_estimated=False)

    async def _stream(
        self, blocks: AsyncIterator[bytes], counter: extraction.StreamUsageReader
    ) -> AsyncGenerator[bytes, None]:
        look_at = 1 if self._has_budget() else None
        try:
            async for block in blocks:
                if self.first_byte_seconds is None:
                    self.first_byte_seconds = time.perf_counter() - self._began
                passed = counter.feed(block)
                if look_at is not None and counter.text_chunks >= look_at:
                    look_at = counter.text_chunks + await self._pieces_within_budget(counter)
                if passed:
                    yield passed
            self._settle(counter.usage, counter.text_chunks)
        finally:
            if isinstance(blocks, AsyncGenerator):
                await blocks.aclose()

    async def _pieces(self, pieces: AsyncIterator[bytes], is_json: bool) -> AsyncGenerator[bytes, None]:
        kept: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                if self.first_byte_seconds is None:
                    self.first_byte_seconds = time.perf_counter() - self._began
                size += len(piece)
                if is_json and size <= MAX_READ_BYTES:
                    kept.append(piece)
                yield piece
            self._settle(extraction.usage_of_response(b"".join(kept)) if size <= MAX_READ_BYTES else None, 0)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    def _has_budget(self) -> bool:
        held = self._reservation
        return held is not None and any(isinstance(charge.limit, BudgetWindow) for charge in held.charges)

    async def _pieces_within_budget(self, counter: extraction.StreamUsageReader) -> int:
        """How many more pieces may pass before this has to be asked again. Money for them is reserved before they come; where
        there is no more, what is reserved is used up piece by piece. Raises QuotaExceeded, StoreUnavailable."""
        held, price = self._reservation, self._price
        if held is None or price is None:
            return _LOOK_EVERY
        found = self._estimate()
        so_far = counter.usage or Usage(found.min_prompt, counter.text_chunks)
        ahead = Usage(max(found.prompt, so_far.prompt_tokens), so_far.completion_tokens + _LOOK_EVERY)
        pieces = _LOOK_EVERY
        for place, charge in enumerate(held.charges):
            if not isinstance(charge.limit, BudgetWindow):
                continue
            missing = price.cost(ahead) - held.amounts[place]
            if missing <= 0 or await self._is_extended(held, place, missing):
                continue
            if price.cost(so_far) > held.amounts[place]:
                limit = charge.limit
                per = f" per {limit.per}" if limit.per else ""
                raise QuotaExceeded(
                    f"The budget of token {limit.token_id} ran out while it was answered: Limit ${format_usd(limit.size)}{per}."
                )
            pieces = 1
        return pieces

    async def _is_extended(self, held: Reservation, place: int, amount: int) -> bool:
        try:
            return await self._limiter.extend(held, place, amount)
        except CounterStoreUnavailable:
            raise StoreUnavailable("What this token has used cannot be read at the moment.") from None

    def _settle(self, reported: Usage | None, pieces: int) -> None:
        """Only a request that makes something uses something: what is looked at again was counted when it was made."""
        is_counted = self._request.method == "POST"
        is_estimated = reported is None and is_counted and self._request.fields is not None
        used = self._guess(pieces) if is_estimated else reported if is_counted else None
        self._close(used or NOTHING_USED, is_estimated)

    def _guess(self, pieces: int) -> Usage:
        """What an upstream does not say."""
        found = self._estimate()
        return Usage(found.prompt, pieces if found.has_completion else 0)

    def _estimate(self) -> Estimate:
        """Made once: it reads the whole prompt."""
        if self._estimated is None:
            fields = self._request.fields
            self._estimated = estimate(self._request.path, fields if isinstance(fields, JsonObject) else None)
        return self._estimated

    def _close(self, usage: Usage, is_estimated: bool) -> None:
        self._is_settled = True
        self.usage = usage
        self.is_estimated = is_estimated
        self.cost = 0 if self._price is None or usage is NOTHING_USED else self._price.cost(usage)
        if self._reservation is not None:
            charges = self._reservation.charges
            self._limiter.settle(self._reservation, actual_charges(charges, usage.total_tokens, self.cost))

    def _entry(self) -> LedgerEntry:
        whose, first = self._whose, self.first_byte_seconds
        return LedgerEntry(
            request_id=whose.request_id,
            at=int(whose.at * 1000),
            token_id=whose.token_id,
            owner=whose.owner,
            model=whose.model,
            deployment=whose.deployment,
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
    """Without the ids in it: what is grouped by must not grow with every file."""
    first, _, rest = path.partition("/")
    second = rest.partition("/")[0]
    return f"{first}/{second}"[:64] if first in _WITH_TWO_PARTS and second else first[:64]


def _status_of(error: BaseException) -> int:
    return CLIENT_GONE if isinstance(error, asyncio.CancelledError | ConnectionError) else 500
