"""The budget of a running stream: money for the next chunks is reserved before they come, and a stream that has none left is
cut."""

from gateway.core.errors import QuotaExceeded, StoreUnavailable
from gateway.core.money import format_usd
from gateway.limits.algorithms import BudgetWindow, Limit
from gateway.limits.limiter import Limiter
from gateway.limits.store import CounterStoreUnavailable, Reservation
from gateway.usage.estimate import Estimate
from gateway.usage.extraction import count_so_far
from gateway.usage.models import Usage
from gateway.usage.pricing.prices import Price

CHECK_EVERY_TOKENS = 32
"""How many tokens may pass between two checks."""


class StreamBudget:
    """Extends the reservation of one stream while it runs."""

    def __init__(self, limiter: Limiter, reservation: Reservation, price: Price, estimate: Estimate) -> None:
        self._limiter = limiter
        self._reservation = reservation
        self._price = price
        self._estimate = estimate
        self.next_check = 1
        """The number of completion tokens, counted by their text, at which ``check`` is due."""

    async def check(self, reported: Usage | None, tokens: int) -> None:
        """Reserves money for the tokens until the next check, after ``tokens`` of them.

        Where there is no more money, what is reserved is used up event by event. Raises QuotaExceeded when nothing of it is
        left, StoreUnavailable.
        """
        so_far = count_so_far(reported, self._estimate.min_prompt, tokens)
        ahead = Usage(max(self._estimate.prompt, so_far.prompt_tokens), so_far.completion_tokens + CHECK_EVERY_TOKENS)
        wait = CHECK_EVERY_TOKENS
        for index, charge in enumerate(self._reservation.charges):
            if not isinstance(charge.limit, BudgetWindow):
                continue
            missing = self._price.cost(ahead) - self._reservation.amounts[index]
            if missing <= 0 or await self._extend(index, missing):
                continue
            if self._price.cost(so_far) > self._reservation.amounts[index]:
                raise _used_up(charge.limit)
            wait = 1
        self.next_check = tokens + wait

    async def _extend(self, index: int, amount: int) -> bool:
        try:
            return await self._limiter.extend(self._reservation, index, amount)
        except CounterStoreUnavailable:
            raise StoreUnavailable("What this token has used cannot be read at the moment.") from None


def _used_up(limit: Limit) -> QuotaExceeded:
    per = f" per {limit.per}" if limit.per else ""
    return QuotaExceeded(
        f"The budget of token {limit.token_id} ran out while it was answered: Limit ${format_usd(limit.size)}{per}."
    )
