"""How long to wait before a dead worker is started again."""

from gateway.supervisor import FIRST_PAUSE, LONGEST_PAUSE, STABLE_SECONDS, Backoff


def test_the_first_death_costs_little() -> None:
    assert Backoff().pause == 0
    assert Backoff().after(0.1).pause == FIRST_PAUSE


def test_early_deaths_double_the_pause_up_to_a_bound() -> None:
    backoff, pauses = Backoff(), []
    for _ in range(12):
        backoff = backoff.after(1.0)
        pauses.append(backoff.pause)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_a_long_life_makes_good() -> None:
    assert Backoff(LONGEST_PAUSE).after(STABLE_SECONDS).pause == FIRST_PAUSE
    assert Backoff(LONGEST_PAUSE).after(STABLE_SECONDS - 0.001).pause == LONGEST_PAUSE
