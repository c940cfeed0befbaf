"""Tracks what one admitted request uses, from its reservation to its entry in the ledger.

The tracker is a state machine. The table in ``charges.py`` says what a request is charged, by the state in which it ends and the
way in which it does.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache
from types import TracebackType
from typing import Self

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject
from gateway.core.sound_length import NO_SOUND
from gateway.core.upstream_errors import UpstreamTimeout
from gateway.inference.charges import CHARGES, NO_USE, Charged, Outcome, State, Used
from gateway.inference.models import Admitted, RequestIdentity
from gateway.inference.stream_budget import StreamBudget
from gateway.limits import presentation
from gateway.limits.algorithms import actual_charges
from gateway.limits.limiter import Limiter
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.usage import extraction
from gateway.usage.estimate import NOTHING_ESTIMATED, UNIT_ENDPOINTS, Estimate, estimate
from gateway.usage.generated_text import BYTES_PER_TOKEN, MAX_READ_BYTES, count_response_tokens
from gateway.usage.ledger import Ledger
from gateway.usage.models import NOTHING_USED, LedgerEntry, Usage

CLIENT_GONE = 499
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
        ledger: Ledger,
    ) -> None:
        self._identity = identity
        self._request = request
        self._price, self._reservation = admitted.price, admitted.reservation
        self._known_estimate, self._expected = admitted.estimate, admitted.expected
        self._limiter = limiter
        self._ledger = ledger
        self._is_running = False
        self._final = NO_USE
        self._progress: tuple[State, Usage | None, int] | None = None
        """What the last call of ``settle_so_far`` found."""
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
            self._watch()
            self.state = State.STREAMING_EVENTS
            self._stream = extraction.StreamUsageReader(drops_usage)
            response.body = self._track_events(body, self._stream)
        else:
            self._watch()
            response.body = self._track_bytes(body, is_json="json" in response.content_type)
        return response

    def __enter__(self) -> Self:
        """Notes that the provider may be at work from now on."""
        if self._request.stream:
            self.state = State.SENT_FOR_STREAM
            self._watch()
        else:
            self.state = State.SENT
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._status = error.status if isinstance(error, GatewayError) else _status_of(error)
        try:
            if self.state is not State.SETTLED:
                self._settle(_outcome_of(error), *self._counted())
        finally:
            if self.state is not State.SETTLED:
                self._close(NO_USE)
            if self._is_running:
                self._ledger.running.remove(self)
            self._ledger.record(self._entry(self._final))

    def settle_so_far(self) -> LedgerEntry | None:
        """Counts what the response has used so far as used, and returns its entry as if the client left now.

        Returns None where nothing has changed since the last call, or the request is settled. The end corrects whatever was
        counted too much or too little.
        """
        progress = (self.state, *self._counted())
        if self.state is State.SETTLED or progress == self._progress:
            return None
        self._progress = progress
        used = self._used(Outcome.CLIENT_GONE, *progress[1:])
        if self._reservation is not None:
            self._limiter.settle_so_far(self._reservation, used.cost)
        return self._entry(msgspec.structs.replace(used, is_partial=True))

    def _watch(self) -> None:
        """Lets what is used be settled from time to time, as long as the response streams."""
        if not self._is_running:
            self._is_running = True
            self._ledger.running.add(self)

    def _counted(self) -> tuple[Usage | None, int]:
        """Returns what a stream has reported so far, and the completion tokens that were counted by their text."""
        stream = self._stream
        return (None, 0) if stream is None else (stream.usage, stream.text_tokens)

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
        self._close(self._used(outcome, reported, tokens))

    def _used(self, outcome: Outcome, reported: Usage | None, tokens: int) -> Used:
        """Returns what the request has used if it ends now, in this way."""
        charged = CHARGES[self.state][outcome]
        is_partial = charged in (Charged.PROMPT, Charged.RESERVED, Charged.SO_FAR)
        # Only a request that makes something uses something: what is read again was counted when it was made.
        is_counted = self._request.method == "POST" or self._request.body is not None
        if charged is Charged.NOTHING or not is_counted:
            return Used(is_partial=is_partial)
        if charged is not Charged.RESERVED and reported is not None:
            if charged is Charged.SO_FAR:
                reported = extraction.count_so_far(reported, 0, tokens)
            usage = self._with_units(reported)
            return Used(usage, self._cost(usage), False, is_partial)
        return self._estimated(charged, tokens, is_partial)

    def _estimated(self, charged: Charged, tokens: int, is_partial: bool) -> Used:
        """Returns the estimated prompt and the counted completion, where the provider does not say what was used; or the longest
        response that the request allows, and no more money than was reserved."""
        if self._request.fields is None or (found := self._estimate()) is NOTHING_ESTIMATED:
            return Used(is_partial=is_partial)
        if charged is not Charged.RESERVED:
            usage = found.used(tokens)
            return Used(usage, self._cost(usage), True, is_partial)
        usage = self._with_units(self._expected or Usage(found.prompt, found.completion_or(0)))
        reservation, price = self._reservation, self._price
        cost = self._cost(usage)
        if price is not None and reservation is not None and reservation.has_budget:
            cost = min(price.cost(found.expected(price.context_window)), reservation.reserved_money)
        return Used(usage, cost, True, is_partial)

    def _with_units(self, usage: Usage) -> Usage:
        """Returns the usage with the units besides tokens by which some endpoints are priced."""
        if self._request.path not in UNIT_ENDPOINTS:
            return usage
        found = self._estimate()
        if usage.seconds and not usage.total_tokens and self._price is not None and self._price.second is None:
            return found.heard(usage.seconds)  # its tokens have the price
        return found.with_units(usage)

    def _estimate(self) -> Estimate:
        """Returns the estimate that the admission was based on. Without one it is made now: it reads the whole prompt."""
        if self._known_estimate is None:
            fields = self._request.fields
            known = fields if isinstance(fields, JsonObject) else None
            body = self._request.body
            sound = body.sound if isinstance(body, FormBody) else NO_SOUND
            self._known_estimate = estimate(self._request.path, known, sound)
        return self._known_estimate

    def _cost(self, usage: Usage) -> int:
        return 0 if self._price is None or usage is NOTHING_USED else self._price.cost(usage)

    def _close(self, used: Used) -> None:
        self.state, self._final = State.SETTLED, used
        self.usage, self.cost = used.usage, used.cost
        self.is_estimated, self.is_partial = used.is_estimated, used.is_partial
        if self._reservation is not None:
            charges = self._reservation.charges
            tokens = self.usage.prompt_tokens + self.usage.completion_tokens
            self._limiter.settle(self._reservation, actual_charges(charges, tokens, self.cost))

    def _entry(self, used: Used) -> LedgerEntry:
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
            usage=used.usage,
            cost=used.cost,
            duration_ms=int((time.perf_counter() - self._began) * 1000),
            first_byte_ms=None if first is None else int(first * 1000),
            partial=used.is_partial,
            estimated=used.is_estimated,
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
