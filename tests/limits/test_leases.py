"""How large a lease may be, what it says about itself, and which counters have some."""

import pytest

from gateway.limits.algorithms import BudgetWindow, Charge, Concurrency, RequestsPerMinute, TokensPerMinute
from gateway.limits.leases import (
    WANTED_MS,
    CounterChange,
    Lease,
    LeaseRequest,
    counters_behind_leases,
    lease_id,
    leased_amount,
    new_worker_id,
    renewed_amount,
)
from gateway.limits.models import Counter
from tests.support.limits import NOW

BUDGET = BudgetWindow("tok_a", None, 1000)
WORKER = 42
LEASES = lease_id(WORKER)


def test_a_worker_and_its_leases_have_ids_of_their_own() -> None:
    assert {new_worker_id() % 2 for _ in range(99)} == {0}
    assert LEASES == 43
    assert leased_amount(Counter(reserved=9, reserved_by_worker={WORKER: 2, LEASES: 3, LEASES + 2: 4})) == 7
    assert leased_amount(Counter()) == 0


@pytest.mark.parametrize(
    ("counter", "current", "wanted", "minimum", "amount"),
    [
        (Counter(), 0, 100, 10, 100),
        (Counter(), 0, 500, 10, 125),  # an eighth of what remains
        (Counter(used=840), 0, 100, 10, 20),
        (Counter(used=841), 0, 100, 10, 0),  # less than two requests
        (Counter(used=800, reserved=40), 40, 100, 10, 25),
        (Counter(used=900, reserved=100), 100, 100, 10, 0),
        (Counter(), 60, 0, 10, 0),
        (Counter(used=992), 0, 1, 0, 0),
        (Counter(wanted_at=NOW), 60, 100, 10, 0),
        (Counter(wanted_at=NOW - WANTED_MS + 1), 60, 100, 10, 0),
        (Counter(wanted_at=NOW - WANTED_MS), 0, 100, 10, 100),
        (Counter(wanted_at=NOW + 1), 0, 100, 10, 100),
    ],
)
def test_a_lease_is_small_beside_what_remains(
    counter: Counter, current: int, wanted: int, minimum: int, amount: int
) -> None:
    assert renewed_amount(LeaseRequest(BUDGET, current, wanted, minimum), counter, NOW) == amount


def test_only_a_charge_that_does_not_fit_beside_leases_waits_for_them() -> None:
    charge = Charge(Concurrency("tok_a", None, 5), 1, 1)
    leased = Counter(reserved=5, reserved_by_worker={WORKER: 3, LEASES: 2})
    used = Counter(reserved=5, reserved_by_worker={WORKER: 5})
    free = Counter(reserved=4, reserved_by_worker={LEASES: 4})
    assert counters_behind_leases([charge] * 3, [used, leased, free]) == [leased]


def test_a_single_request_leases_nothing_and_more_lease_for_four_times_as_many() -> None:
    lease = Lease(BUDGET, asked=30, largest=30, requests=1, is_active=True)
    assert (lease.take(), lease.is_active) == (None, False)
    lease.requests = 2
    assert lease.take() == LeaseRequest(BUDGET, 0, 120, 30)
    lease.free = 50
    assert lease.take() == LeaseRequest(BUDGET, 50, 90, 30)  # nothing was asked for: it shrinks
    assert lease.free == 0
    assert [request.wanted for request in (lease.take(), lease.take()) if request] == [67, 60]


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        (BUDGET, CounterChange(BUDGET, WORKER, -30, 20, 7, NOW)),
        (rate := TokensPerMinute("tok_a", None, 99), CounterChange(rate, WORKER, -30, 20, 7, NOW)),
        (rpm := RequestsPerMinute("tok_a", None, 99), CounterChange(rpm, WORKER, -30, 0, 27, NOW)),
    ],
    ids=["budget", "tokens", "requests"],
)
def test_what_was_granted_is_told_once(limit: BudgetWindow, change: CounterChange) -> None:
    lease = Lease(limit, free=5, running=20, ended=10, used=7)
    assert lease.change(WORKER, NOW) == change
    assert lease.change(WORKER, NOW) == CounterChange(limit, WORKER, at=NOW)
    assert lease.free == 5
