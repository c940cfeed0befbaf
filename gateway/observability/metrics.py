"""What is counted. One object a process; labels come from small fixed sets.

A worker counts into its own page of memory that all workers share, so whichever of them is asked tells of all. Counting is a
plain write: the library's own counters take a lock for each step, which every request would pay and few would look at.
"""

from bisect import bisect_left
from typing import TYPE_CHECKING, Literal, get_args

from gateway.observability.prometheus import SECONDS, Family, PrometheusCollector, histogram_keys, series_key
from gateway.observability.shared_metrics import OVERFLOW, SharedMetrics, WorkerMetrics

if TYPE_CHECKING:
    from gateway.usage.models import Usage

RefusalReason = Literal["requests", "tokens", "parallel", "budget", "price", "queue_full", "store"]
"""The limit that was reached; ``price``: none is known for the model; ``store``: the counters cannot be read."""
Store = Literal["tokens", "counters", "ledger"]
_KINDS = ("prompt", "completion", "cached", "reasoning")

_FAMILIES = (
    Family("gateway_requests_total", "counter", "Requests answered", ("route", "status")),
    Family("gateway_request_seconds", "histogram", "From the request's head to the answer's end", ("route",)),
    Family("gateway_first_byte_seconds", "histogram", "From the request's head to the answer's first byte", ("route",)),
    Family("gateway_requests_in_flight", "sum", "Requests being answered"),
    Family("gateway_requests_queued", "sum", "Requests waiting for their turn"),
    Family("gateway_refusals_total", "counter", "Requests refused by a limit", ("reason",)),
    Family("gateway_tokens_total", "counter", "Language-model tokens; details are in the sums, too", ("kind",)),
    Family("gateway_cost_micro_usd_total", "counter", "What was used, in millionths of a US dollar"),
    Family("gateway_usage_estimated_total", "counter", "Requests of which the upstream did not say what they used"),
    Family("gateway_usage_partial_total", "counter", "Requests whose answer did not come to its end"),
    Family(
        "gateway_token_store_up",
        "least",
        "1 while the token file is readable, else 0",
        (),
        ("gateway_store_up", "tokens"),
    ),
    Family("gateway_store_up", "least", "1 while every worker can use the store, else 0", ("store",)),
    Family(
        "gateway_token_use_write_failures_total",
        "counter",
        "Failed attempts to write last-used times; they are kept and tried again",
    ),
    Family("gateway_token_uses_waiting", "sum", "Tokens whose last use is not written yet"),
    Family("gateway_ledger_waiting", "sum", "Entries of the ledger that are not written yet"),
    Family("gateway_ledger_write_failures_total", "counter", "Failed attempts to write the ledger"),
    Family("gateway_settlements_waiting", "sum", "Uses that the counters do not know yet"),
    Family(OVERFLOW, "counter", "Series that found no room and are not kept"),
)


class Counter:
    """Only goes up."""

    def __init__(self, page: WorkerMetrics, *key: str) -> None:
        self._values = page.values
        self._slot = page.slot(series_key(*key))

    def inc(self, amount: float = 1.0) -> None:
        self._values[self._slot] += amount


class Gauge:
    """This worker's part of a gauge. It begins at 0."""

    def __init__(self, page: WorkerMetrics, *key: str) -> None:
        self._values = page.values
        self._slot = page.slot(series_key(*key), is_gauge=True)

    def inc(self, amount: float = 1.0) -> None:
        self._values[self._slot] += amount

    def dec(self, amount: float = 1.0) -> None:
        self._values[self._slot] -= amount

    def set(self, value: float) -> None:
        self._values[self._slot] = value


class Histogram:
    """A histogram with the route for its label."""

    def __init__(self, page: WorkerMetrics, name: str) -> None:
        self._page = page
        self._name = name
        self._values = page.values
        self._slots: dict[str, tuple[int, ...]] = {}

    def slots(self, route: str) -> tuple[int, ...]:
        """A slot for each bucket, and one for the sum."""
        slots = self._slots.get(route)
        if slots is None:
            slots = self._slots[route] = tuple(map(self._page.slot, histogram_keys(self._name, route)))
        return slots

    def add(self, route: str, seconds: float) -> None:
        slots = self.slots(route)
        values = self._values
        values[slots[bisect_left(SECONDS, seconds)]] += 1.0
        values[slots[-1]] += seconds


class Metrics:
    """The gateway's metrics, in a registry of their own. Called on one thread, that of the event loop."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, page: WorkerMetrics | None = None, shared: SharedMetrics | None = None) -> None:
        """``page`` is this worker's page in ``shared``; without any, the process is alone. Raises ValueError for a page
        without its arena, which nobody could read."""
        if shared is None:
            if page is not None:
                raise ValueError("a page without its arena cannot be read")
            shared = SharedMetrics(1)
        self._page = page or shared.page(0)
        self._values = self._page.values
        self._page.start()
        self._collector = PrometheusCollector(shared, _FAMILIES)
        self.registry = self._collector.registry
        self._make_gauges()
        self._make_counters()

    def _make_gauges(self) -> None:
        page = self._page
        self.in_flight = Gauge(page, "gateway_requests_in_flight")
        self.queued = Gauge(page, "gateway_requests_queued")
        self.uses_waiting = Gauge(page, "gateway_token_uses_waiting")
        self.ledger_waiting = Gauge(page, "gateway_ledger_waiting")
        self.settlements_waiting = Gauge(page, "gateway_settlements_waiting")
        self.token_store_up = Gauge(page, "gateway_store_up", "tokens")

    def _make_counters(self) -> None:
        page = self._page
        self.use_write_failures = Counter(page, "gateway_token_use_write_failures_total")
        self.ledger_write_failures = Counter(page, "gateway_ledger_write_failures_total")
        self._refusals = {reason: Counter(page, "gateway_refusals_total", reason) for reason in get_args(RefusalReason)}
        self._tokens = tuple(page.slot(series_key("gateway_tokens_total", kind)) for kind in _KINDS)
        self._cost = page.slot("gateway_cost_micro_usd_total")
        self._estimated = page.slot("gateway_usage_estimated_total")
        self._partial = page.slot("gateway_usage_partial_total")
        self._answers: dict[tuple[str, int], tuple[int, ...]] = {}
        self._request_seconds = Histogram(page, "gateway_request_seconds")
        self._first_byte_seconds = Histogram(page, "gateway_first_byte_seconds")

    def answered(self, route: str, status: int, seconds: float) -> None:
        """``route`` is a row of the route table, never a path that a client made up."""
        slots = self._answers.get((route, status))
        if slots is None:
            answers = self._page.slot(series_key("gateway_requests_total", route, str(status)))
            slots = self._answers[route, status] = (answers, *self._request_seconds.slots(route))
        values = self._values
        values[slots[0]] += 1.0
        values[slots[bisect_left(SECONDS, seconds) + 1]] += 1.0
        values[slots[-1]] += seconds

    def first_byte(self, route: str, seconds: float) -> None:
        """``route`` as in ``answered``."""
        self._first_byte_seconds.add(route, seconds)

    def used(self, usage: "Usage", cost: int, estimated: bool, partial: bool) -> None:
        """What one request used. ``cost`` in micro-dollars."""
        values = self._values
        prompt, completion, cached, reasoning = self._tokens
        values[prompt] += usage.prompt_tokens
        values[completion] += usage.completion_tokens
        values[cached] += usage.cached_tokens
        values[reasoning] += usage.reasoning_tokens
        values[self._cost] += cost
        if estimated:
            values[self._estimated] += 1.0
        if partial:
            values[self._partial] += 1.0

    def refused(self, reason: RefusalReason) -> None:
        self._refusals[reason].inc()

    def store_up(self, store: Store) -> Gauge:
        """Whether this worker can use the store: to be kept and set to 1 or 0. What nobody has asked for is not shown."""
        return Gauge(self._page, "gateway_store_up", store)

    def page(self) -> bytes:
        """The Prometheus text exposition, of all workers."""
        return self._collector.page()
