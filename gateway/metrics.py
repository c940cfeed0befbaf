"""What is counted. One object a process; labels come from small fixed sets.

A request's counters are plain numbers that turn into Prometheus's metrics when somebody asks: the library's own counters
take a lock for each step, which every request would pay and few would look at.
"""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class RequestCounts(Collector):
    """Answers by route and status, and how long they took by route."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, route: str, status: int, seconds: float) -> None:
        key = (route, status)
        self._answers[key] = self._answers.get(key, 0) + 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(_SECONDS) + 1)
        buckets[bisect_left(_SECONDS, seconds)] += 1
        self._sums[route] = self._sums.get(route, 0.0) + seconds

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        answers = CounterMetricFamily("gateway_requests", "Requests answered", labels=("route", "status"))
        for (route, status), count in self._answers.items():
            answers.add_metric((route, str(status)), count)
        yield answers
        seconds = HistogramMetricFamily(
            "gateway_request_seconds", "From the request's head to the answer's end", labels=("route",)
        )
        for route, buckets in self._buckets.items():
            seconds.add_metric((route,), _cumulated(buckets), self._sums[route])
        yield seconds


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket all that is smaller, too."""
    bounds = [*(str(bound) for bound in _SECONDS), "+Inf"]
    return [(bound, sum(buckets[: index + 1])) for index, bound in enumerate(bounds)]


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = RequestCounts()
        self.registry.register(self._requests)
        self.in_flight = Gauge("gateway_requests_in_flight", "Requests being answered", registry=self.registry)
        self.token_store_up = Gauge(
            "gateway_token_store_up", "1 while the token file is readable, else 0", registry=self.registry
        )
        self.use_write_failures = Counter(
            "gateway_token_use_write_failures_total",
            "Failed attempts to write last-used times; they are kept and tried again",
            registry=self.registry,
        )
        self.uses_waiting = Gauge(
            "gateway_token_uses_waiting", "Tokens whose last use is not written yet", registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """``route`` is a row of the route table, never a path that a client made up."""
        self._requests.add(route, status, seconds)

    def page(self) -> bytes:
        """The Prometheus text exposition."""
        return generate_latest(self.registry)
