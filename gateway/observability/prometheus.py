"""The Prometheus text format of what all workers have counted."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.core.escaping import for_display
from gateway.observability.shared_metrics import SharedMetrics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The upper bounds of a histogram's buckets, in seconds; one more bucket has no bound."""
_BOUNDS = (*(str(bound) for bound in SECONDS), "+Inf")

SUM = "sum"
"""The last part of the key of a histogram's sum, where the keys of its buckets have their number."""

_SEPARATOR = "\t"

Kind = Literal["counter", "sum", "least", "histogram"]
"""``sum`` and ``least`` are gauges: the sum or the minimum of the workers' values."""

Numbers = dict[tuple[str, ...], float]
"""Values by labels."""


class Family(NamedTuple):
    """One metric. Where ``source`` is set, it shows one series of another metric: its name, then its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    source: tuple[str, ...] | None = None


def series_key(name: str, *labels: str) -> str:
    """Returns the key of a series in shared memory."""
    return _SEPARATOR.join((name, *labels))


def histogram_keys(name: str, *labels: str) -> tuple[str, ...]:
    """Returns a key for each bucket, and one for the sum."""
    return tuple(series_key(name, *labels, part) for part in (*map(str, range(len(_BOUNDS))), SUM))


class PrometheusCollector(Collector):
    """Reads the shared metrics of all workers each time it is asked."""

    def __init__(self, shared: SharedMetrics, families: Sequence[Family]) -> None:
        self._shared = shared
        self._families = families
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """Returns the Prometheus text exposition, in UTF-8."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yields every metric, merged over the workers; the Prometheus library calls it."""
        readings = self._shared.read()
        by_metric = _group_by_metric(readings)
        for family in self._families:
            source, *labels = family.source or (family.name,)
            series = by_metric.get(source, {})
            if family.source:
                series = {(): series[tuple(labels)]} if tuple(labels) in series else {}
            merge = min if family.kind == "least" else sum
            yield _metric(family, {key: merge(_pad(values, len(readings))) for key, values in sorted(series.items())})
        yield GaugeMetricFamily("gateway_workers", "Workers that have begun", len(readings))


def _group_by_metric(readings: Iterable[dict[str, float]]) -> dict[str, dict[tuple[str, ...], list[float]]]:
    """Returns the workers' values by metric and labels."""
    by_key: dict[str, list[float]] = {}
    for reading in readings:
        for key, value in reading.items():
            by_key.setdefault(key, []).append(value)
    by_metric: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for key, values in by_key.items():
        name, *labels = key.split(_SEPARATOR)
        by_metric.setdefault(name, {})[tuple(map(for_display, labels))] = values
    return by_metric


def _pad(values: list[float], workers: int) -> list[float]:
    """Returns one value for each worker: 0 for those that have not registered the series yet."""
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
    """Returns a histogram with cumulative buckets, as Prometheus wants them."""
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels in dict.fromkeys(key[:-1] for key in numbers):
        total = 0.0
        buckets = []
        for index, bound in enumerate(_BOUNDS):
            total += numbers.get((*labels, str(index)), 0.0)
            buckets.append((bound, total))
        metric.add_metric(labels, buckets, numbers.get((*labels, SUM), 0.0))
    return metric
