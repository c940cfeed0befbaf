"""What one request used, and what is kept of it. Values only."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Language-model tokens. The details are parts of the two sums, not added to them."""

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

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING_USED = Usage()


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger: one request that was admitted."""

    request_id: str
    at: int
    """When it began, in milliseconds since the epoch."""
    token_id: str
    """``environment`` or ``open`` where no token was used."""
    owner: str | None
    model: str | None
    deployment: str
    endpoint: str
    """What stands behind ``/v1/``, such as ``chat/completions``; ids within it are not kept."""
    status: int
    """As in the access log: 499 for a client that left."""
    usage: Usage
    cost: int
    """Micro-dollars."""
    duration_ms: int
    first_byte_ms: int | None
    partial: bool
    """The answer did not come to its end, so the upstream may have counted more."""
    estimated: bool
    """The upstream did not say what was used."""
