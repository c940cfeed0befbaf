"""How an entry of the ledger is added up by the hour, the same for every usage store. Pure."""

from gateway.usage.models import HOUR_SECONDS, LedgerEntry, UsageTotals

MAX_AMOUNT = 10**12
"""The largest amount that is stored of one entry: numbers that a provider makes up must not make a sum overflow 64 bits."""

HourKey = tuple[int, str, str, str]
"""The start of the hour in seconds since the epoch, token id, owner, model; an empty string where there is none."""


def hour_key(entry: LedgerEntry) -> HourKey:
    """Returns under which key the entry is added up."""
    # Empty strings, because SQL takes two NULLs in a key for different values.
    start = entry.at // (HOUR_SECONDS * 1000) * HOUR_SECONDS
    return start, encodable(entry.token_id), encodable(entry.owner or ""), encodable(entry.model or "")


def totals_of(entry: LedgerEntry) -> UsageTotals:
    """Returns what the entry adds to its hour."""
    usage = entry.usage
    return UsageTotals(
        1,
        bounded(usage.prompt_tokens),
        bounded(usage.completion_tokens),
        bounded(usage.cached_tokens),
        bounded(usage.reasoning_tokens),
        bounded(entry.cost),
        int(entry.status >= 400),
        int(entry.partial),
        int(entry.estimated),
    )


def bounded(amount: int) -> int:
    """Returns the amount, from 0 to MAX_AMOUNT."""
    return amount if 0 <= amount <= MAX_AMOUNT else min(max(amount, 0), MAX_AMOUNT)


def encodable(text: str) -> str:
    """Returns a text that UTF-8 can encode. A token file may hold half a surrogate pair: one such name must not keep the other
    entries from being written."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
