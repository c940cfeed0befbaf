"""A request for inference, as the HTTP layer hands it over and as it reads it when the request ends."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.limits.store import Reservation
from gateway.providers.base import ProviderRequest
from gateway.usage.estimate import Estimate
from gateway.usage.models import Usage
from gateway.usage.pricing.prices import Price


class RequestIdentity(msgspec.Struct, frozen=True):
    """Who is charged for a request, as the ledger names them."""

    request_id: str
    token_id: str
    """``environment`` or ``open`` where no token was used."""
    owner: str | None
    model: str | None
    """The name that the client used."""
    deployment: str
    at: int
    """When it was admitted, in milliseconds since the epoch."""


class Admitted(msgspec.Struct, frozen=True):
    """What a request was admitted with."""

    price: Price | None
    """None where nobody knows it."""
    reservation: Reservation | None
    """None where no limit applies."""
    estimate: Estimate | None
    """None where no limit depends on it."""
    expected: Usage | None = None
    """What rates have reserved for it; None where no limit depends on that."""


class TrackedUsage(Protocol):
    """What is known of a request's use so far; final once the response has been sent."""

    usage: Usage
    cost: int
    """In micro-dollars."""
    is_estimated: bool
    """Whether the provider did not say what was used."""
    is_partial: bool
    """Whether the response did not come to its end."""
    first_byte_seconds: float | None
    """From the admission to the first byte of the response."""

    def headers(self) -> dict[str, str]:
        """Returns ``x-ratelimit-*`` as things stand."""


class InferenceRequest(msgspec.Struct):
    """One request, and what becomes known of it while it is served."""

    id: str
    request: ProviderRequest
    max_wait: float | None = None
    """How many seconds the client will wait for its turn; None where it does not say."""
    on_admitted: Callable[[], None] | None = None
    """Is called once its limits allow the request."""
    deployment: str | None = None
    """The provider's name, once the request is routed."""
    usage: TrackedUsage | None = None
    """None until the request is admitted."""
    upstream_seconds: float = 0.0
    """The time spent waiting for the provider's response to begin."""

    @property
    def model(self) -> str | None:
        """The name that the client used."""
        return self.request.model
