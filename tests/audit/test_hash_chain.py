"""The chain: every line is bound to the one before, and a change of any byte shows at that very line."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import FIRST, START, Actor, AuditEvent, verify
from gateway.core.escaping import is_shown

BY = Actor("token", "Ann's laptop", "tok_1", "192.0.2.7", "req_1")


def entry(number: int = 0) -> AuditEvent:
    return AuditEvent(
        actor=BY, action="token.update", token_id=f"tok_{number}", token="näme", changes={"name": ("a", 'b","hash":"x')}
    )


def log(count: int) -> list[bytes]:
    lines, end = [], START
    for number in range(count):
        line, end = chain.encode(entry(number), "2026-01-01T00:00:00Z", end)
        lines.append(line)
    return lines


def test_a_line_says_who_did_what_and_which_line_came_before() -> None:
    first, second = (json.loads(line) for line in log(2))
    assert (first["number"], first["previous"], second["previous"]) == (1, FIRST, first["hash"])
    assert first.pop("hash")
    actor = {
        "kind": "token",
        "name": "Ann's laptop",
        "token_id": "tok_1",
        "address": "192.0.2.7",
        "request_id": "req_1",
    }
    assert list(first.items()) == [
        ("number", 1), ("time", "2026-01-01T00:00:00Z"), ("actor", actor), ("action", "token.update"),
        ("token_id", "tok_0"), ("token", "näme"), ("changes", {"name": ["a", 'b","hash":"x']}), ("previous", FIRST),
    ]  # fmt: skip


def test_a_hash_can_be_made_by_hand() -> None:
    line = log(1)[0].decode()
    before, _, rest = line.rpartition(',"hash":"')
    assert hashlib.sha256(before.encode()).hexdigest() == rest.removesuffix('"}\n')


def test_a_whole_chain_is_whole() -> None:
    lines = log(20)
    assert verify(lines) == (chain.head_after(lines[-1]), None)
    assert verify([]) == (START, None)


OUT_OF_PLACE = "does not follow the line before it: lines were removed, added or moved here"
CHANGED = "was changed: its content does not fit its hash"
CUT = "ends early: a change was interrupted here, or something was cut off"

CASES = {
    "a line is gone": (lambda lines: lines[:5] + lines[6:], 6, OUT_OF_PLACE),
    "the first line is gone": (lambda lines: lines[1:], 1, OUT_OF_PLACE),
    "two lines are swapped": (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], 4, OUT_OF_PLACE),
    "a line appears twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, OUT_OF_PLACE),
    "a value was changed": (lambda lines: [*lines[:7], lines[7].replace(b"tok_7", b"tok_8", 1), *lines[8:]], 8, CHANGED),
    "an empty line": (lambda lines: [*lines[:2], b"\n", *lines[2:]], 3, "is not JSON"),
    "a number": (lambda lines: [*lines[:2], b"7\n", *lines[2:]], 3, "is no line of an audit log"),
    "another object": (lambda lines: [b'{"number":"1","previous":0,"hash":0}\n'], 1, "is no line of an audit log"),
    "half a line at the end": (lambda lines: [*lines[:9], lines[9][:-10]], 10, CUT),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_first_broken_line_is_named(case: str) -> None:
    change, line, reason = CASES[case]
    verdict = verify(change(log(10)))
    assert verdict.broken == (line, reason)
    assert verdict.end.number == line - 1


def test_a_forged_line_with_a_hash_of_its_own_does_not_fit_behind() -> None:
    lines = log(5)
    forged, _ = chain.encode(entry(99), "2026-01-01T00:00:00Z", chain.head_after(lines[1]))
    verdict = verify([*lines[:2], forged, *lines[3:]])
    assert verdict.broken is not None
    assert verdict.broken.line == 4


def test_a_number_out_of_turn_is_named() -> None:
    line, _ = chain.encode(entry(), "2026-01-01T00:00:00Z", chain.ChainHead(7, FIRST))
    verdict = verify([line])
    assert verdict.broken == (1, "has the number 8 where 1 is due")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_shows_at_its_line(place: int, change: int) -> None:
    data = bytearray(b"".join(log(4)))
    place %= len(data)
    line = data[:place].count(b"\n") + 1
    data[place] ^= change
    verdict = verify(bytes(data).splitlines(keepends=True) if b"\n" in data else [bytes(data)])
    assert verdict.broken is not None
    assert verdict.broken.line <= line + 1
    assert verdict.broken.line >= min(line, 4) - 1


def test_the_first_line_follows_64_zeros() -> None:
    assert FIRST == "0" * 64 == START.hash
    assert START.number == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"number":1,"previous":"","hash":2}',
        b'{"number":"1","previous":"","hash":"2"}',
        b'{"previous":"","hash":"2"}',
        b'{"number":1,"hash":"2"}',
        b'{"number":1,"previous":""}',
    ],
)
def test_a_line_has_a_number_and_two_hashes(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is no line of an audit log$"):
        chain.head_after(line)
    assert chain.head_after(b'{"number":1,"previous":"","hash":"2"}') == chain.ChainHead(1, "2")


def test_a_line_keeps_its_content_and_shows_nothing_that_acts_on_a_terminal() -> None:
    acting = "\x1b]0;t\x07\x9b31m\u202e\u2028\x7f"
    event = AuditEvent(
        actor=Actor("token", "a"), action="update", token_id="t", token="n", changes={"metadata": (None, acting)}
    )
    line, _ = chain.encode(event, "2026-01-31T10:30:00Z", START)
    assert verify([line]).broken is None
    assert chain.read(line)["changes"]["metadata"][1] == acting
    assert all(map(is_shown, line.decode().rstrip("\n")))
