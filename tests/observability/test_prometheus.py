"""The Prometheus text format: how the values of workers are merged, labelled and cumulated."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.escaping import for_display
from gateway.observability.prometheus import (
    SECONDS,
    SUM,
    Family,
    PrometheusCollector,
    histogram_keys,
    series_key,
)
from gateway.observability.shared_metrics import SharedMetrics

REQUESTS = Family("requests_total", "counter", "Requests", ("route", "status"))
QUEUED = Family("queued", "sum", "Requests that wait")
STORE_UP = Family("store_up", "least", "Whether every worker can use the store", ("store",))
TOKENS_UP = Family("tokens_up", "least", "The same of the tokens", source=("store_up", "tokens"))
DURATION = Family("seconds", "histogram", "Durations", ("route",))
Samples = dict[tuple[str, ...], float]
"""Values by the sample's name and the values of its labels, in the order of the labels' names."""


class Page:
    """The page of some workers, of which each has set values by key."""

    def __init__(self, *families: Family, workers: int = 1) -> None:
        self.shared = SharedMetrics(workers)
        self.collector = PrometheusCollector(self.shared, families)
        self._workers = [self.shared.worker(number) for number in range(workers)]
        for worker in self._workers:
            worker.start()

    def add(self, key: str, amount: float, worker: int = 0) -> None:
        one = self._workers[worker]
        one.add(one.slot(key), amount)

    def text(self) -> str:
        return self.collector.render().decode()

    def samples(self) -> Samples:
        """All samples but the number of workers."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name != "gateway_workers"
        }


def test_a_counter_has_its_help_type_labels_and_value() -> None:
    page = Page(REQUESTS)
    page.add(series_key("requests_total", "/v1/models", "200"), 3)
    assert page.text() == (
        "# HELP requests_total Requests\n"
        "# TYPE requests_total counter\n"
        'requests_total{route="/v1/models",status="200"} 3.0\n'
        "# HELP gateway_workers Workers that have begun\n"
        "# TYPE gateway_workers gauge\n"
        "gateway_workers 1.0\n"
    )


def test_counters_and_gauges_are_summed_over_workers() -> None:
    page = Page(REQUESTS, QUEUED, workers=3)
    page.add(series_key("requests_total", "/", "200"), 2, worker=0)
    page.add(series_key("requests_total", "/", "200"), 5, worker=2)
    page.add(series_key("requests_total", "/", "404"), 1, worker=1)
    page.add("queued", 4, worker=1)
    assert page.samples() == {
        ("requests_total", "/", "200"): 7.0,
        ("requests_total", "/", "404"): 1.0,
        ("queued",): 4.0,
    }
    assert "gateway_workers 3.0\n" in page.text()


def test_the_least_value_counts_and_a_worker_without_the_series_has_nought() -> None:
    page = Page(STORE_UP, workers=2)
    page.add(series_key("store_up", "tokens"), 1, worker=0)
    assert page.samples() == {("store_up", "tokens"): 0.0}
    page.add(series_key("store_up", "tokens"), 1, worker=1)
    assert page.samples() == {("store_up", "tokens"): 1.0}


def test_a_metric_can_show_one_series_of_another() -> None:
    page = Page(STORE_UP, TOKENS_UP)
    page.add(series_key("store_up", "ledger"), 1)
    assert page.samples() == {("store_up", "ledger"): 1.0}, "the series is not there yet"
    page.add(series_key("store_up", "tokens"), 1)
    assert page.samples() == {("store_up", "ledger"): 1.0, ("store_up", "tokens"): 1.0, ("tokens_up",): 1.0}


def test_a_series_without_a_metric_is_not_shown() -> None:
    page = Page(QUEUED)
    page.add("of another version", 1)
    assert page.samples() == {}


@given(st.text(st.characters(exclude_characters="\t", exclude_categories=["Cs"]), max_size=20))
def test_any_label_comes_back_as_it_is_shown(route: str) -> None:
    page = Page(REQUESTS)
    page.add(series_key("requests_total", route, "200"), 1)
    assert page.samples() == {("requests_total", for_display(route), "200"): 1.0}


def test_a_histogram_has_cumulative_buckets_a_count_and_a_sum() -> None:
    page = Page(DURATION, workers=2)
    keys = histogram_keys("seconds", "/")
    assert len(keys) == len(SECONDS) + 2, "a bucket for each bound, one without a bound, and the sum"
    page.add(keys[0], 2, worker=0)
    page.add(keys[3], 1, worker=1)
    page.add(keys[len(SECONDS)], 4, worker=0)
    page.add(series_key("seconds", "/", SUM), 1.5, worker=0)
    page.add(series_key("seconds", "/", SUM), 2.5, worker=1)
    samples = page.samples()
    bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
    expected = [2.0] * 3 + [3.0] * (len(SECONDS) - 3) + [7.0]
    assert [samples["seconds_bucket", bound, "/"] for bound in bounds] == expected
    assert (samples["seconds_count", "/"], samples["seconds_sum", "/"]) == (7.0, 4.0)
