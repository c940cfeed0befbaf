"""So many a minute for each address: exact, shared by workers, and bounded whatever comes."""

import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import ip_rate_limit
from gateway.http.ip_rate_limit import IpRateLimit
from tests.support.tokens import Clock


def passed(limiter: IpRateLimit, address: str | None, times: int) -> int:
    return sum(limiter.wait(address) == 0 for _ in range(times))


def test_a_minutes_worth_passes_at_once_and_then_one_a_second() -> None:
    clock = Clock(1000.0)
    limiter = IpRateLimit(60, clock)
    assert passed(limiter, "192.0.2.1", 100) == 60
    assert limiter.wait("192.0.2.1") == pytest.approx(1.0)
    clock.now += 1.0
    assert passed(limiter, "192.0.2.1", 10) == 1
    clock.now += 60.0
    assert passed(limiter, "192.0.2.1", 100) == 60


def test_waiting_as_long_as_said_is_enough() -> None:
    clock = Clock(5.0)
    limiter = IpRateLimit(60, clock)
    passed(limiter, "192.0.2.1", 60)
    for _ in range(20):
        clock.now += limiter.wait("192.0.2.1")
        assert limiter.wait("192.0.2.1") == 0


def test_addresses_do_not_share_and_ipv6_neighbours_do() -> None:
    limiter = IpRateLimit(60, Clock(0.0))
    assert passed(limiter, "192.0.2.1", 100) == passed(limiter, "192.0.2.2", 100) == passed(limiter, None, 100) == 60
    assert passed(limiter, "2001:db8::1", 100) == 60
    assert passed(limiter, "2001:db8::ffff:1", 100) == 0
    assert passed(limiter, "2001:db8:0:1::1", 100) == 60


def test_a_flood_of_addresses_does_not_free_who_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only as many others with as much to pay back could take its place, and those are held back, too."""
    monkeypatch.setattr(ip_rate_limit, "_BUCKETS", 1)
    limiter = IpRateLimit(60, Clock(0.0))
    passed(limiter, "192.0.2.1", 60)
    for number in range(10_000):
        limiter.wait(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert limiter.wait("192.0.2.1") > 0


def _ask(limiter: IpRateLimit, answers: "multiprocessing.SimpleQueue[int]") -> None:
    answers.put(passed(limiter, "192.0.2.1", 100))


def test_workers_count_together() -> None:
    context = multiprocessing.get_context("fork")
    limiter = IpRateLimit(60)
    answers: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    workers = [context.Process(target=_ask, args=(limiter, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    total = sum(answers.get() for _ in workers)
    assert 60 <= total <= 62, "60, and what a slow machine's seconds pay back"


@given(st.lists(st.floats(0, 5, allow_nan=False), max_size=60), st.integers(1, 30))
def test_never_more_than_the_rate_allows(pauses: list[float], per_minute: int) -> None:
    clock = Clock(0.0)
    limiter = IpRateLimit(per_minute, clock)
    times = []
    for pause in pauses:
        clock.now += pause
        if limiter.wait("192.0.2.1") == 0:
            times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            allowed = per_minute + (times[last] - times[first]) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-6
