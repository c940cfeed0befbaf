"""Counters are written to files: the order of their fields, and what an absent field means, are a format."""

import msgspec
import pytest

from gateway.limits.models import Amounts, Counter, LimitKind


@pytest.mark.parametrize(
    ("counter", "written"),
    [
        (Counter(), [0, 0, 0, None, None, 0]),
        (Counter(1, 2, 3, 4, {5: 6}, 7), [1, 2, 3, 4, {5: 6}, 7]),
    ],
)
def test_a_counter_is_written_as_an_array_and_read_back(counter: Counter, written: list[object]) -> None:
    encoded = msgspec.msgpack.encode(counter)
    assert msgspec.msgpack.decode(encoded, strict=False) == written
    assert msgspec.msgpack.decode(encoded, type=Counter) == counter


def test_fields_that_an_older_version_did_not_write_have_their_defaults() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([7]), type=Counter) == Counter(used=7)


def test_nothing_is_estimated_unless_it_is_said() -> None:
    assert Amounts() == Amounts(tokens=0, minimum_tokens=0, cost=0, minimum_cost=0)
    assert [kind.value for kind in LimitKind] == ["requests", "tokens", "parallel", "budget"]
