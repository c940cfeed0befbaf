"""The use case of inference without a server: real counters, real prices, a ledger in a list."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.auth.principal import Principal
from gateway.inference.admission import Admission, AdmissionRules
from gateway.inference.service import Backends, Inference, MeteringRules, Origin
from gateway.limits.limiter import Limiter
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.providers.base import Provider, ProviderRequest, ProviderResponse
from gateway.usage.models import LedgerEntry
from gateway.usage.pricing.prices import load_prices, packaged_prices, read_price_table
from tests.support.tokens import Clock


@dataclass
class ListLedger:
    """A ledger that is easy to look into."""

    entries: list[LedgerEntry] = field(default_factory=list)
    is_full: bool = False

    def record(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)


@dataclass
class World:
    """An inference and everything behind it."""

    inference: Inference
    counters: MemoryCounterStore
    ledger: ListLedger
    refusals: list[str]
    clock: Clock

    async def run(self, principal: Principal, request: ProviderRequest) -> ProviderResponse:
        """Admit, and answer: what stands behind the answer is read, and settled, by the caller."""
        usage_tracker = await self.inference.admit(principal, request, Origin("req_1", 0))
        return await self.inference.run(principal, request, usage_tracker)


def world(
    real: Provider,
    test: Provider,
    aliases: Mapping[str, str] | None = None,
    *,
    prices: object = None,
    asks: bool = True,
) -> World:
    clock = Clock()
    counters = MemoryCounterStore()
    ledger = ListLedger()
    refusals: list[str] = []
    admission = Admission(
        Limiter(counters, clock, 100),
        counters,
        load_prices(packaged_prices(), read_price_table(prices or {})),
        AdmissionRules(aliases or {}, 1000, 0),
        refusals.append,
    )
    rules = MeteringRules(clock, asks, str)
    inference = Inference(Backends(real, test), aliases or {}, admission, ledger, rules)  # type: ignore[arg-type]
    return World(inference, counters, ledger, refusals, clock)
