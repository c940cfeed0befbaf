"""What all workers have counted, summed up and put into words for Prometheus."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.observability.shared_metrics import SharedMetrics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The upper bounds of a histogram's buckets; one more bucket has none."""
_BOUNDS = (*(str(bound) for bound in SECONDS), "+Inf")

SUM = "sum"
"""What stands in a histogram's key where the others have the number of a bucket."""

_SEPARATOR = "\t"

Kind = Literal["counter", "sum", "least", "histogram"]
"""A gauge is the sum of what the workers say, or the least of it."""

Numbers = dict[tuple[str, ...], float]
"""By labels."""


class Family(NamedTuple):
    """One metric. ``source`` is set where another metric's series, with these labels, is shown under a name of its own."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    source: tuple[str, ...] | None = None


def series_key(name: str, *labels: str) -> str:
    """What a series is called on a worker's page."""
    return _SEPARATOR.join((name, *labels))


def histogram_keys(name: str, *labels: str) -> tuple[str, ...]:
    """A key for each bucket, and one for the sum."""
    return tuple(series_key(name, *labels, part) for part in (*map(str, range(len(_BOUNDS))), SUM))


class PrometheusCollector(Collector):
    """Reads the workers' pages at the moment when somebody asks."""

    def __init__(self, shared: SharedMetrics, families: Sequence[Family]) -> None:
        self._shared = shared
        self._families = families
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def page(self) -> bytes:
        """The Prometheus text exposition."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        readings = self._shared.read()
        gathered = _gathered(readings)
        for family in self._families:
            source, *labels = family.source or (family.name,)
            series = gathered.get(source, {})
            if family.source:
                series = {(): series[tuple(labels)]} if tuple(labels) in series else {}
            merge = min if family.kind == "least" else sum
            yield _metric(family, {key: merge(_said(values, len(readings))) for key, values in sorted(series.items())})
        yield GaugeMetricFamily("gateway_workers", "Workers that have begun", len(readings))


def _gathered(readings: Iterable[dict[str, float]]) -> dict[str, dict[tuple[str, ...], list[float]]]:
    """What the workers say, by metric and labels."""
    by_key: dict[str, list[float]] = {}
    for reading in readings:
        for key, value in reading.items():
            by_key.setdefault(key, []).append(value)
    gathered: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for key, values in by_key.items():
        name, *labels = key.split(_SEPARATOR)
        gathered.setdefault(name, {})[tuple(labels)] = values
    return gathered


def _said(values: list[float], workers: int) -> list[float]:
    """Who has not said anything of a series yet says 0."""
    return values + [0.0] * (workers - len(values))


def _metric(family: Family, numbers: Numbers) -> Metric:
    if family.kind == "histogram":
        return _histogram(family, numbers)
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, number in numbers.items():
        metric.add_metric(labels, number)
    return metric


def _histogram(family: Family, numbers: Numbers) -> Metric:
    """Prometheus counts in each bucket all that is smaller, too."""
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels in dict.fromkeys(key[:-1] for key in numbers):
        total = 0.0
        buckets = []
        for index, bound in enumerate(_BOUNDS):
            total += numbers.get((*labels, str(index)), 0.0)
            buckets.append((bound, total))
        metric.add_metric(labels, buckets, numbers.get((*labels, SUM), 0.0))
    return metric
