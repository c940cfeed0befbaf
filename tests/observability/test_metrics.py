"""One page for all workers: sums, minima, and histograms that Prometheus's own parser understands."""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.metrics import Metrics, RefusalReason
from gateway.observability.prometheus import SECONDS
from gateway.observability.shared_metrics import CAPACITY, SharedMetrics
from gateway.usage.models import NOTHING_USED, Usage

FORK = multiprocessing.get_context("fork")
CHAT = "/v1/chat/completions"


@dataclass
class Used:
    """What the metrics are told of a request for inference."""

    usage: Usage
    cost: int = 0
    is_estimated: bool = False
    is_partial: bool = False
    first_byte_seconds: float | None = None


class ParsedPage:
    """A page, read back."""

    def __init__(self, metrics: Metrics) -> None:
        families = list(text_string_to_metric_families(metrics.render().decode()))
        self.types = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def buckets(self, name: str, route: str) -> list[tuple[str, float]]:
        """In the order of the page."""
        return [
            (dict(labels)["le"], value)
            for (sample, labels), value in self.samples.items()
            if sample == f"{name}_bucket" and dict(labels)["route"] == route
        ]


def workers(count: int) -> list[Metrics]:
    shared = SharedMetrics(count)
    return [Metrics(shared, number) for number in range(count)]


def test_a_page_of_one_worker() -> None:
    metrics = Metrics()
    metrics.count_response(CHAT, 200, 0.02)
    metrics.count_response(CHAT, 200, 0.02)
    metrics.count_response(CHAT, 404, 7)
    metrics.count_response("unknown", 404, 0)
    text = metrics.render().decode()
    assert f'gateway_requests_total{{route="{CHAT}",status="200"}} 2.0' in text
    shown = ParsedPage(metrics)
    assert shown.value("gateway_requests_total", route=CHAT, status="404") == 1
    assert shown.value("gateway_requests_total", route="unknown", status="404") == 1
    assert shown.value("gateway_request_seconds_count", route=CHAT) == 3
    assert shown.value("gateway_request_seconds_sum", route=CHAT) == pytest.approx(7.04)
    assert shown.value("gateway_workers") == 1


def test_the_names_and_types() -> None:
    assert ParsedPage(Metrics()).types == {
        "gateway_requests": "counter",
        "gateway_request_seconds": "histogram",
        "gateway_first_byte_seconds": "histogram",
        "gateway_requests_in_flight": "gauge",
        "gateway_requests_queued": "gauge",
        "gateway_refusals": "counter",
        "gateway_tokens": "counter",
        "gateway_cost_micro_usd": "counter",
        "gateway_usage_estimated": "counter",
        "gateway_usage_partial": "counter",
        "gateway_token_store_up": "gauge",
        "gateway_store_up": "gauge",
        "gateway_token_use_write_failures": "counter",
        "gateway_token_uses_waiting": "gauge",
        "gateway_ledger_waiting": "gauge",
        "gateway_ledger_write_failures": "counter",
        "gateway_object_store_failures": "counter",
        "gateway_settlements_waiting": "gauge",
        "gateway_audit_log_bytes": "gauge",
        "gateway_metrics_overflow": "counter",
        "gateway_workers": "gauge",
    }


def test_what_never_happened_is_shown_as_nought() -> None:
    """A rate needs a first value from which to rise."""
    shown = ParsedPage(Metrics())
    for reason in get_args(RefusalReason):
        assert shown.value("gateway_refusals_total", reason=reason) == 0
    for kind in ("prompt", "completion", "cached", "reasoning"):
        assert shown.value("gateway_tokens_total", kind=kind) == 0
    for name in ("cost_micro_usd", "usage_estimated", "usage_partial", "ledger_write_failures", "metrics_overflow"):
        assert shown.value(f"gateway_{name}_total") == 0


def test_what_requests_used() -> None:
    one, other = workers(2)
    one.count_response(CHAT, 200, 0.1, Used(Usage(100, 20, cached_tokens=30, reasoning_tokens=5), 1234, False, False))
    one.count_response(CHAT, 200, 0.1, Used(Usage(1, 2, cached_tokens=0, reasoning_tokens=0), 10, True, True))
    other.count_response(CHAT, 200, 0.1, Used(Usage(1000, 200, cached_tokens=0, reasoning_tokens=0), 1, True, False))
    other.count_response(CHAT, 200, 0.1, Used(Usage(0, 0, cached_tokens=0, reasoning_tokens=0), 0, False, False))
    shown = ParsedPage(one)
    assert shown.samples == ParsedPage(other).samples
    assert shown.value("gateway_tokens_total", kind="prompt") == 1101
    assert shown.value("gateway_tokens_total", kind="completion") == 222
    assert shown.value("gateway_tokens_total", kind="cached") == 30
    assert shown.value("gateway_tokens_total", kind="reasoning") == 5
    assert shown.value("gateway_cost_micro_usd_total") == 1245
    assert shown.value("gateway_usage_estimated_total") == 2
    assert shown.value("gateway_usage_partial_total") == 1


@pytest.mark.parametrize("reason", get_args(RefusalReason))
def test_refusals(reason: RefusalReason) -> None:
    one, other = workers(2)
    one.count_refusal(reason)
    other.count_refusal(reason)
    samples = ParsedPage(one).samples
    assert {
        labels: value for (name, labels), value in samples.items() if name == "gateway_refusals_total" and value
    } == {(("reason", reason),): 2.0}


def test_gauges_are_summed() -> None:
    one, other, _ = workers(3)
    one.in_flight.set(3)
    other.in_flight.set(5)
    other.in_flight.set(4)
    one.queued.set(1)
    other.queued.set(1)
    one.queued.set(0)
    for metrics, number in ((one, 10), (other, 5)):
        metrics.uses_waiting.set(number)
        metrics.ledger_waiting.set(number + 1)
        metrics.settlements_waiting.set(number + 2)
        metrics.use_write_failures.inc()
        metrics.ledger_write_failures.inc(2)
    shown = ParsedPage(other)
    assert shown.value("gateway_requests_in_flight") == 7
    assert shown.value("gateway_requests_queued") == 1
    assert shown.value("gateway_token_uses_waiting") == 15
    assert shown.value("gateway_ledger_waiting") == 17
    assert shown.value("gateway_settlements_waiting") == 19
    assert shown.value("gateway_token_use_write_failures_total") == 2
    assert shown.value("gateway_ledger_write_failures_total") == 4
    assert shown.value("gateway_workers") == 3


def test_a_store_is_up_if_every_worker_says_so() -> None:
    one, other = workers(2)
    counters = [metrics.store_gauge("counters") for metrics in (one, other)]
    assert ParsedPage(one).value("gateway_token_store_up") == 0
    one.token_store_up.set(True)
    counters[0].set(1)
    shown = ParsedPage(one)
    assert shown.value("gateway_token_store_up") == shown.value("gateway_store_up", store="tokens") == 0
    assert shown.value("gateway_store_up", store="counters") == 0
    other.token_store_up.set(True)
    counters[1].set(1)
    shown = ParsedPage(other)
    assert shown.value("gateway_token_store_up") == shown.value("gateway_store_up", store="tokens") == 1
    assert shown.value("gateway_store_up", store="counters") == 1
    one.token_store_up.set(False)
    assert ParsedPage(other).value("gateway_token_store_up") == 0


def test_a_store_that_nobody_has_is_not_shown_and_one_that_some_do_not_know_is_down() -> None:
    one, other = workers(2)
    assert ParsedPage(one).value("gateway_store_up", store="ledger") is None
    one.store_gauge("ledger").set(1)
    assert ParsedPage(one).value("gateway_store_up", store="ledger") == 0
    other.store_gauge("ledger").set(1)
    assert ParsedPage(one).value("gateway_store_up", store="ledger") == 1


def test_a_worker_that_has_not_begun_does_not_count() -> None:
    shared = SharedMetrics(4)
    metrics = Metrics(shared, 2)
    metrics.token_store_up.set(1)
    shown = ParsedPage(metrics)
    assert shown.value("gateway_workers") == 1
    assert shown.value("gateway_token_store_up") == 1


def test_without_a_number_it_is_the_first_worker() -> None:
    shared = SharedMetrics(1)
    Metrics(shared).queued.set(1)
    [numbers] = shared.read()
    assert numbers["gateway_requests_queued"] == 1


def test_a_bound_belongs_to_its_bucket() -> None:
    metrics = Metrics()
    metrics.count_response(CHAT, 200, 0.1, Used(NOTHING_USED, first_byte_seconds=0.25))
    metrics.count_response(CHAT, 200, 0.1, Used(NOTHING_USED, first_byte_seconds=0.2500001))
    metrics.count_response(CHAT, 200, 0.1, Used(NOTHING_USED, first_byte_seconds=1e9))
    shown = ParsedPage(metrics)
    buckets = dict(shown.buckets("gateway_first_byte_seconds", CHAT))
    assert (buckets["0.1"], buckets["0.25"], buckets["0.5"], buckets["300.0"], buckets["+Inf"]) == (0, 1, 2, 2, 3)
    assert shown.value("gateway_request_seconds_count", route=CHAT) == 3


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([CHAT, "/v1/models/{model...}", 'a"\\b']), st.floats(0, 400)))
)
def test_histograms_cumulate_over_workers(asked: list[tuple[int, str, float]]) -> None:
    every = workers(3)
    for number, route, seconds in asked:
        every[number].count_response(route, 200, seconds, Used(NOTHING_USED, first_byte_seconds=seconds / 2))
    shown = ParsedPage(every[0])
    for route in {route for _, route, _ in asked}:
        for name, part in (("gateway_request_seconds", 1), ("gateway_first_byte_seconds", 2)):
            taken = [seconds / part for _, where, seconds in asked if where == route]
            expected = [(str(bound), sum(seconds <= bound for seconds in taken)) for bound in SECONDS]
            assert shown.buckets(name, route) == [*expected, ("+Inf", len(taken))]
            assert shown.value(f"{name}_count", route=route) == len(taken)
            assert shown.value(f"{name}_sum", route=route) == pytest.approx(sum(taken))


def test_more_series_than_there_is_space_for_do_not_break_a_request(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    for number in range(CAPACITY):
        metrics.count_response("/", number, 0.1)
        metrics.count_response(f"/{number}", 200, 0.1)
    metrics.count_refusal("budget")
    shown = ParsedPage(metrics)
    overflow = shown.value("gateway_metrics_overflow_total")
    assert overflow is not None and overflow > 0
    assert shown.value("gateway_refusals_total", reason="budget") == 1
    assert shown.value("gateway_request_seconds_count", route="/") == CAPACITY
    assert len(caplog.records) == 1


def _serve(shared: SharedMetrics, worker: int, ready: "multiprocessing.SimpleQueue[bytes]") -> None:
    metrics = Metrics(shared, worker)
    metrics.token_store_up.set(1)
    metrics.in_flight.set(2)
    for _ in range(1000):
        metrics.count_response(CHAT, 200, 0.5, Used(Usage(3, 2, cached_tokens=1), 7, False, True))
    ready.put(metrics.render())
    signal.pause()


def test_counters_go_on_over_a_workers_death_and_gauges_begin_anew() -> None:
    shared = SharedMetrics(2)
    metrics = Metrics(shared, 0)
    metrics.token_store_up.set(1)
    for life in (1, 2):
        ready: multiprocessing.SimpleQueue[bytes] = (
            FORK.SimpleQueue()
        )  # of its own: who is killed may hold its lock for ever
        process = FORK.Process(target=_serve, args=(shared, 1, ready))
        process.start()
        page = ready.get()
        assert page == metrics.render(), "each worker shows the metrics of all"
        shown = ParsedPage(metrics)
        assert shown.value("gateway_requests_total", route=CHAT, status="200") == 1000 * life
        assert shown.value("gateway_request_seconds_sum", route=CHAT) == 500 * life
        assert shown.value("gateway_tokens_total", kind="prompt") == 3000 * life
        assert shown.value("gateway_cost_micro_usd_total") == 7000 * life
        assert shown.value("gateway_requests_in_flight") == 2
        assert shown.value("gateway_token_store_up") == 1
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
    again = Metrics(shared, 1)
    shown = ParsedPage(again)
    assert shown.value("gateway_requests_in_flight") == 0
    assert shown.value("gateway_token_store_up") == 0, "the new worker has not set it yet"
    assert shown.value("gateway_requests_total", route=CHAT, status="200") == 2000
