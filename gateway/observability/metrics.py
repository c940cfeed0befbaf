"""The gateway's metrics. Each worker has one ``Metrics`` object; labels come from small fixed sets.

A worker counts in memory that all workers share, so each of them can show the metrics of all. Counting is a plain write to
memory: the counters of the Prometheus library take a lock at each step, which is too slow for every request.
"""

from bisect import bisect_left
from typing import Literal, Protocol, get_args

from gateway.observability.prometheus import SECONDS, Family, PrometheusCollector, histogram_keys, series_key
from gateway.observability.shared_metrics import OVERFLOW, SharedMetrics, WorkerMetrics

RefusalReason = Literal["requests", "tokens", "parallel", "budget", "price", "queue_full", "store"]
"""The limit that a request exceeded; ``price``: the model has no known price; ``store``: the counters cannot be read."""
Store = Literal["tokens", "counters", "ledger", "objects", "disk"]
_TOKEN_KINDS = ("prompt", "completion", "cached", "reasoning")


class TokenCounts(Protocol):
    """Language-model tokens: of the prompt, of the completion, read from the provider's cache, used for reasoning."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...

    @property
    def cached_tokens(self) -> int: ...

    @property
    def reasoning_tokens(self) -> int: ...


class Inference(Protocol):
    """What is known of a request for inference when it has ended. ``cost`` in micro-dollars."""

    @property
    def usage(self) -> TokenCounts: ...

    cost: int
    is_estimated: bool
    is_partial: bool
    first_byte_seconds: float | None


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
    Family("gateway_object_store_failures_total", "counter", "Failed attempts to use the file of objects"),
    Family("gateway_settlements_waiting", "sum", "Uses that the counters do not know yet"),
    Family("gateway_audit_log_bytes", "least", "Size of the audit log"),
    Family(OVERFLOW, "counter", "Series that found no space and are not kept"),
)


class Counter:
    """A number that only grows."""

    def __init__(self, worker: WorkerMetrics, *key: str) -> None:
        self._values = worker.values
        self._slot = worker.slot(series_key(*key))

    def inc(self, amount: float = 1.0) -> None:
        """Adds an amount."""
        self._values[self._slot] += amount


class Gauge:
    """This worker's part of a gauge. It begins at 0."""

    def __init__(self, worker: WorkerMetrics, *key: str) -> None:
        self._values = worker.values
        self._slot = worker.slot(series_key(*key), is_gauge=True)

    def set(self, value: float) -> None:
        """Sets the value of this worker."""
        self._values[self._slot] = value


class Histogram:
    """Durations in seconds, by route."""

    def __init__(self, worker: WorkerMetrics, name: str) -> None:
        self._worker = worker
        self._name = name
        self._values = worker.values
        self._slots: dict[str, tuple[int, ...]] = {}

    def slots(self, route: str) -> tuple[int, ...]:
        """Returns a slot for each bucket, and one for the sum."""
        slots = self._slots.get(route)
        if slots is None:
            slots = self._slots[route] = tuple(map(self._worker.slot, histogram_keys(self._name, route)))
        return slots

    def observe(self, route: str, seconds: float) -> None:
        """Counts one duration."""
        slots = self.slots(route)
        values = self._values
        values[slots[bisect_left(SECONDS, seconds)]] += 1.0
        values[slots[-1]] += seconds


class Metrics:
    """What one worker counts, and the page with the metrics of all. Used from one thread, that of the event loop."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, shared: SharedMetrics | None = None, worker: int = 0) -> None:
        """``worker`` is the number of this worker in ``shared``. Without ``shared`` the process is alone."""
        shared = SharedMetrics(1) if shared is None else shared
        self._worker = shared.worker(worker)
        self._values = self._worker.values
        self._worker.start()
        self._collector = PrometheusCollector(shared, _FAMILIES)
        self._make_gauges()
        self._make_counters()

    def _make_gauges(self) -> None:
        worker = self._worker
        self.in_flight = Gauge(worker, "gateway_requests_in_flight")
        self.queued = Gauge(worker, "gateway_requests_queued")
        self.uses_waiting = Gauge(worker, "gateway_token_uses_waiting")
        self.ledger_waiting = Gauge(worker, "gateway_ledger_waiting")
        self.audit_log_bytes = Gauge(worker, "gateway_audit_log_bytes")
        self.settlements_waiting = Gauge(worker, "gateway_settlements_waiting")
        self.token_store_up = Gauge(worker, "gateway_store_up", "tokens")

    def _make_counters(self) -> None:
        worker = self._worker
        self.use_write_failures = Counter(worker, "gateway_token_use_write_failures_total")
        self.ledger_write_failures = Counter(worker, "gateway_ledger_write_failures_total")
        self.object_store_failures = Counter(worker, "gateway_object_store_failures_total")
        self._refusals = {
            reason: Counter(worker, "gateway_refusals_total", reason) for reason in get_args(RefusalReason)
        }
        self._tokens = tuple(worker.slot(series_key("gateway_tokens_total", kind)) for kind in _TOKEN_KINDS)
        self._cost = worker.slot("gateway_cost_micro_usd_total")
        self._estimated = worker.slot("gateway_usage_estimated_total")
        self._partial = worker.slot("gateway_usage_partial_total")
        self._answers: dict[tuple[str, int], tuple[int, ...]] = {}
        self._request_seconds = Histogram(worker, "gateway_request_seconds")
        self._first_byte_seconds = Histogram(worker, "gateway_first_byte_seconds")

    def count_response(self, route: str, status: int, seconds: float, inference: Inference | None = None) -> None:
        """Counts a response, its duration, and what a request for inference has used.

        ``route`` is a pattern of the route table, never a path that a client sent.
        """
        slots = self._answers.get((route, status))
        if slots is None:
            answers = self._worker.slot(series_key("gateway_requests_total", route, str(status)))
            slots = self._answers[route, status] = (answers, *self._request_seconds.slots(route))
        values = self._values
        values[slots[0]] += 1.0
        values[slots[bisect_left(SECONDS, seconds) + 1]] += 1.0
        values[slots[-1]] += seconds
        if inference is not None:
            self._count_inference(route, inference)

    def _count_inference(self, route: str, inference: Inference) -> None:
        values, usage = self._values, inference.usage
        prompt, completion, cached, reasoning = self._tokens
        values[prompt] += usage.prompt_tokens
        values[completion] += usage.completion_tokens
        values[cached] += usage.cached_tokens
        values[reasoning] += usage.reasoning_tokens
        values[self._cost] += inference.cost
        if inference.is_estimated:
            values[self._estimated] += 1.0
        if inference.is_partial:
            values[self._partial] += 1.0
        if inference.first_byte_seconds is not None:
            self._first_byte_seconds.observe(route, inference.first_byte_seconds)

    def count_refusal(self, reason: RefusalReason) -> None:
        """Counts a request that was refused by a limit."""
        self._refusals[reason].inc()

    def store_gauge(self, store: Store) -> Gauge:
        """Returns the gauge that is 1 while this worker can use the store, else 0. A store without a gauge is not shown."""
        return Gauge(self._worker, "gateway_store_up", store)

    def render(self) -> bytes:
        """Returns the metrics of all workers in Prometheus's text format."""
        return self._collector.render()
