"""The kinds of step in the life of tokens, and what chance decides about each."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.campaigns.life import Order
from tests.campaigns.life_model import YEAR

PATTERNS = (None, [], ["*"], ["gpt-*"], ["gpt-4*"], ["gpt-4o"], ["*-mini"], ["gpt-4o", "o1"])
Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda chance: chance.choice(values)


def any_number(chance: random.Random) -> int:
    return chance.randrange(10_000)


def pair_of(draw: Draw) -> Draw:
    return lambda chance: (draw(chance), draw(chance))


def some_of(**draws: Draw) -> Draw:
    """An object with about half of these fields; ``name`` is always there."""
    return lambda chance: {
        name: draw(chance) for name, draw in draws.items() if name == "name" or chance.random() < 0.4
    }


WHO = one_of("command line", "second process", "gateway")
AT_THE_SHELL = one_of("command line", "second process")
YES_OR_NO = one_of(True, False)
CALLS = one_of(*range(1, 36))
"""About as many as a change asks of the disk."""
VERBS = one_of("create", "rotate", "rotate", "revoke", "delete", "use")
_SOME = {
    "name": one_of("alpha", "beta", "gamma", "delta"),
    "role": one_of("service", "member", "member", "admin"),
    "models": one_of(*PATTERNS),
    "rpm": one_of(None, 10, 50),
}
WISHES = some_of(
    **_SOME, expires_at=one_of(None, 2, 60, 3600, 90_000, YEAR), prefix=one_of("sk-", "sk_live_", "sk_test_")
)
VALUES = some_of(**_SOME, expires_at=one_of(None, 1, 600, 100_000))


class Rule(NamedTuple):
    """A kind of step: how often it is taken, when it can be, and what chance has to say to it."""

    name: str
    weight: int
    only_if: Callable[[Any], Any]
    draws: dict[str, Draw]


class Step(NamedTuple):
    name: str
    arguments: Order


RULES: list[Rule] = []


def rule(
    weight: int, only_if: Callable[[Any], Any] = lambda _: True, **draws: Draw
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def noted(step: Callable[..., None]) -> Callable[..., None]:
        RULES.append(Rule(step.__name__, weight, only_if, draws))
        return step

    return noted


def has_tokens(life: Any) -> bool:
    return bool(life.model.tokens)


def has_secrets(life: Any) -> bool:
    return bool(life.secrets)
