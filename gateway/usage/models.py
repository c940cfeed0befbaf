"""What one request used, what the ledger keeps of it, and what a report asks for and shows. Values only."""

from collections.abc import Mapping
from operator import add
from typing import Literal, NamedTuple

import msgspec

HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS
MAX_REPORT_ROWS = 10_000

Bucket = Literal["hour", "day"]
GroupBy = Literal["token", "model", "owner"]

BUCKET_SECONDS: Mapping[Bucket, int] = {"hour": HOUR_SECONDS, "day": DAY_SECONDS}


class Usage(msgspec.Struct, frozen=True):
    """Numbers of language-model tokens. The details are parts of the prompt and the completion, not added to them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, read from the provider's cache."""
    cache_write_tokens: int = 0
    """Of the prompt, written to the provider's cache."""
    reasoning_tokens: int = 0
    """Of the completion."""
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    images: int = 0
    """How many were asked for. They are priced, not recorded."""
    characters: int = 0
    """Of the text that was to be spoken. They are priced, not recorded."""
    seconds: int = 0
    """Of the sound that was transcribed. They are priced, not recorded."""

    @property
    def total_tokens(self) -> int:
        """The tokens of the prompt and the completion together."""
        return self.prompt_tokens + self.completion_tokens


NOTHING_USED = Usage()


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was admitted, as the ledger keeps it."""

    request_id: str
    at: int
    """When it began, in milliseconds since the epoch."""
    token_id: str
    """``environment`` or ``open`` where no token was used."""
    owner: str | None
    model: str | None
    deployment: str
    endpoint: str
    """The path after ``/v1/``, such as ``chat/completions``, without the ids in it."""
    status: int
    """As in the access log: 499 for a client that disconnected."""
    usage: Usage
    cost: int
    """Micro-dollars."""
    duration_ms: int
    first_byte_ms: int | None
    partial: bool
    """The response did not come to its end, so the provider may have counted more."""
    estimated: bool
    """The provider did not report the usage."""


class UsageTotals(NamedTuple):
    """Sums over requests. ``cost`` in micro-dollars; ``errors`` are responses with a status of 400 and above."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    errors: int = 0
    partial: int = 0
    estimated: int = 0

    def plus(self, other: "UsageTotals") -> "UsageTotals":
        """Returns the sums of both."""
        return UsageTotals._make(map(add, self, other))


NO_TOTALS = UsageTotals()


class ReportQuery(NamedTuple):
    """What a report is asked for. Times in seconds since the epoch.

    The hour that contains ``since`` counts, and so does every later hour that begins before ``until``. ``token_ids`` of None
    means all, also ids that are not of tokens, or not any more.
    """

    since: int
    until: int
    bucket: Bucket | None = None
    group_by: GroupBy | None = None
    token_ids: frozenset[str] | None = None
    max_rows: int = MAX_REPORT_ROWS


class ReportRow(NamedTuple):
    """The totals of one bucket and group.

    ``start`` in seconds since the epoch; None without buckets. ``group`` is None without groups, and where an owner or a model is
    not known.
    """

    start: int | None
    group: str | None
    totals: UsageTotals
