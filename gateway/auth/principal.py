"""Who is calling."""

from enum import Enum

import msgspec
from msgspec.structs import force_setattr

from gateway.limits.matching import NO_LIMITS, LimitChain
from gateway.tokens.hierarchy import SecretMatch
from gateway.tokens.models import Role, TokenRecord, allows_model
from gateway.tokens.secret import TEST


class Mode(Enum):
    """How callers are told apart. The value is the name that ``/healthz`` and the banner show."""

    OPEN = "open"
    ENVIRONMENT = "environment"
    ENVIRONMENT_AND_FILE = "environment+file"
    FILE = "file"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. ``match`` is None for the environment key and in open mode.

    What depends on the whole line of its token is found once: a principal is kept for as long as the tokens do not change.
    """

    name: str
    role: Role
    secret_match: SecretMatch | None = None
    parents: tuple[TokenRecord, ...] = ()
    """What its rights depend on, too."""
    secret_hash: str = ""
    """Which secret was shown: another one of the same token may live on when this one has ended."""
    is_test: bool = False
    """Test tokens are answered by the echo backend, whatever the model."""
    is_limited: bool = False
    """Whether only certain models are allowed."""
    depends_on_model: bool = False
    """Whether what it may do, or what that costs it, depends on the model: then the model must be known for sure."""
    limits: LimitChain = NO_LIMITS
    """Its own limits and its parents'; each set holds."""

    def __post_init__(self) -> None:
        line = self._line()
        if line:
            limits = [(record.id, record.limits) for record in line if record.limits is not None]
            force_setattr(self, "is_test", any(record.prefix.startswith(TEST) for record in line))
            force_setattr(self, "is_limited", any(record.models is not None for record in line))
            is_metered = any(limits.budget is not None or limits.models for _, limits in limits)
            force_setattr(self, "depends_on_model", self.is_limited or is_metered)
            force_setattr(self, "limits", LimitChain(limits) if limits else NO_LIMITS)

    @property
    def token_id(self) -> str | None:
        return self.secret_match.record.id if self.secret_match else None

    @property
    def names(self) -> dict[str, str]:
        """Of its token and its parents, by their ids: its own first."""
        return {record.id: record.name for record in self._line()}

    def may_use(self, model: str) -> bool:
        return not self.is_limited or all(allows_model(record.models, model) for record in self._line())

    def _line(self) -> tuple[TokenRecord, ...]:
        return () if self.secret_match is None else (self.secret_match.record, *self.parents)


ANONYMOUS = Principal("open", Role.ADMIN)
ENVIRONMENT_KEY = Principal("environment", Role.ADMIN)
