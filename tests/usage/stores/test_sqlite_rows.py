"""The rows of the ledger's tables, and the sums of a batch."""

from gateway.usage.aggregation import MAX_AMOUNT, hour_key, totals_of
from gateway.usage.models import Usage
from gateway.usage.stores.sqlite_rows import entry_row, hour_rows
from tests.support.tokens import NOW
from tests.support.usage import ledger_entry

HOUR_MS = 3_600_000


def test_a_row_has_every_field_in_the_order_of_the_table() -> None:
    usage = Usage(1, 2, 3, 4, 5, 6, 7)
    one = ledger_entry(1, usage, model=None, first_byte_ms=None, status=499, partial=True)
    assert entry_row(one) == (
        one.request_id, NOW * 1000, "tok_1", "ann@example.com", None, "openai", "chat/completions", 499,
        1, 2, 3, 4, 5, 6, 7, 1500, 900, None, 1, 0,
    )  # fmt: skip


def test_what_cannot_be_stored_is_replaced() -> None:
    usage = Usage(prompt_tokens=-1, completion_tokens=10**30)
    row = entry_row(ledger_entry(1, usage, token_id="\ud800", owner="\ud800", model="\ud800", cost=2**70))
    assert row[2:5] == ("?", "?", "?")
    assert (row[8], row[9], row[15]) == (0, MAX_AMOUNT, MAX_AMOUNT)


def test_a_batch_has_one_row_for_each_hour_token_owner_and_model() -> None:
    entries = [
        ledger_entry(1, Usage(1, 2, 3, 4, 5), cost=7),
        ledger_entry(2, Usage(10, 20, 30, 40, 50), cost=70, status=400, partial=True, estimated=True),
        ledger_entry(3, at=NOW * 1000 + HOUR_MS),
        ledger_entry(4, token_id="tok_2"),
        ledger_entry(5, owner=None, status=399),
        ledger_entry(6, model=None),
    ]
    found = hour_rows([entry_row(entry) for entry in entries])
    assert found[0] == (*hour_key(entries[0]), 2, 11, 22, 33, 55, 77, 1, 1, 1)
    assert found[1:] == [(*hour_key(entry), *totals_of(entry)) for entry in entries[2:]]
