"""The kinds of step of a scenario, and the random arguments of each."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.campaigns.life import Command
from tests.campaigns.life_model import YEAR

PATTERNS = (None, [], ["*"], ["gpt-*"], ["gpt-4*"], ["gpt-4o"], ["*-mini"], ["gpt-4o", "o1"])
Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda rng: rng.choice(values)


def any_number(rng: random.Random) -> int:
    return rng.randrange(10_000)


def pair_of(draw: Draw) -> Draw:
    return lambda rng: (draw(rng), draw(rng))


def some_of(**draws: Draw) -> Draw:
    """Draws an object with about half of these fields; ``name`` is always there."""
    return lambda rng: {name: draw(rng) for name, draw in draws.items() if name == "name" or rng.random() < 0.4}


WRITERS = one_of("command line", "second process", "gateway")
LOCAL_WRITERS = one_of("command line", "second process")
YES_OR_NO = one_of(True, False)
DISK_CALLS = one_of(*range(1, 36))
"""About as many calls as a change makes of the disk."""
VERBS = one_of("create", "rotate", "rotate", "revoke", "delete", "use")
_SOME = {
    "name": one_of("alpha", "beta", "gamma", "delta"),
    "role": one_of("service", "member", "member", "admin"),
    "models": one_of(*PATTERNS),
    "rpm": one_of(None, 10, 50),
}
SPECS = some_of(
    **_SOME, expires_at=one_of(None, 2, 60, 3600, 90_000, YEAR), prefix=one_of("sk-", "sk_live_", "sk_test_")
)
UPDATES = some_of(**_SOME, expires_at=one_of(None, 1, 600, 100_000))


class Rule(NamedTuple):
    """A kind of step: how often it is taken, when it can be, and how to draw its arguments."""

    name: str
    weight: int
    condition: Callable[[Any], Any]
    draws: dict[str, Draw]


class Step(NamedTuple):
    name: str
    arguments: Command


RULES: list[Rule] = []


def rule(
    weight: int, condition: Callable[[Any], Any] = lambda _: True, **draws: Draw
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(step: Callable[..., None]) -> Callable[..., None]:
        RULES.append(Rule(step.__name__, weight, condition, draws))
        return step

    return register


def has_tokens(scenario: Any) -> bool:
    return bool(scenario.model.tokens)


def has_secrets(scenario: Any) -> bool:
    return bool(scenario.secrets)
