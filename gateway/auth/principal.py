"""Describes who is calling, and what that means for a request. Values only."""

import math
from collections.abc import Sequence
from enum import Enum

import msgspec

from gateway.limits.matching import NO_LIMITS, LimitChain
from gateway.tokens.models import Role, SecretMatch, TokenRecord, UseKey, allows_model
from gateway.tokens.secret import TEST


class Mode(Enum):
    """How callers are told apart. The value is the name that ``/healthz`` and the banner show."""

    OPEN = "open"
    ENVIRONMENT = "environment"
    ENVIRONMENT_AND_FILE = "environment+file"
    FILE = "file"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller: the environment key, anybody in open mode, or a token, which ``Principal.of`` takes.

    What depends on the whole chain of parents is computed once: a principal is kept for as long as the tokens do not change.
    """

    name: str
    role: Role
    secret_match: SecretMatch | None = None
    """The token and which of its secrets was sent; None without a token."""
    chain: tuple[TokenRecord, ...] = ()
    """The token and its parents, the nearest first; empty without a token."""
    is_test: bool = False
    """Test tokens are answered by the echo provider, whatever the model."""
    is_limited: bool = False
    """Whether only certain models are allowed."""
    depends_on_model: bool = False
    """Whether what it may do, or what that costs it, depends on the model: then the model must be known for sure."""
    has_no_models: bool = False
    """Whether its token or a parent allows no model at all: then nothing reaches the upstream."""
    limits: LimitChain = NO_LIMITS
    """Its own limits and its parents'; each set holds."""
    expires_at: float = math.inf
    """When the secret, the token or one of its parents ends, in seconds since the epoch."""
    use_key: UseKey | None = None
    """Under which key the uses of its secret are noted; None without a token."""
    expires: bool = False
    """Whether it ends at all: only then has the clock to be asked."""

    @classmethod
    def of(cls, match: SecretMatch, parents: Sequence[TokenRecord] = ()) -> "Principal":
        """Returns the principal for a token's secret. The role is the lowest among the token and its parents."""
        chain = (match.record, *parents)
        limits = [(record.id, record.limits) for record in chain if record.limits is not None]
        is_limited = any(record.models is not None for record in chain)
        is_metered = any(own.budget is not None or own.models for _, own in limits)
        ends = [record.expires_at for record in chain if record.expires_at is not None]
        if match.previous is not None:
            ends.append(match.previous.valid_until)
        return cls(
            name=match.record.name,
            role=min((record.role for record in chain), key=lambda role: role.rank),
            secret_match=match,
            chain=chain,
            is_test=any(record.prefix.startswith(TEST) for record in chain),
            is_limited=is_limited,
            depends_on_model=is_limited or is_metered,
            has_no_models=any(record.models is not None and not record.models for record in chain),
            limits=LimitChain(limits) if limits else NO_LIMITS,
            expires_at=min(ends, default=math.inf),
            use_key=UseKey(match.record.id, match.previous.hash if match.previous is not None else None),
            expires=bool(ends),
        )

    @property
    def token_id(self) -> str | None:
        """The id of its token; None without one."""
        return self.secret_match.record.id if self.secret_match else None

    @property
    def rate_key(self) -> str:
        """Under which name its reports and changes are counted: its topmost parent's, so that children give it no more."""
        return self.chain[-1].id if self.chain else self.name

    @property
    def secret_hash(self) -> str:
        """The SHA-256 of the secret that was sent, which may be a replaced one of its token. Empty without a token."""
        if self.secret_match is None:
            return ""
        return (self.secret_match.previous or self.secret_match.record).hash

    @property
    def names(self) -> dict[str, str]:
        """The names of its token and its parents by their ids, its own first."""
        return {record.id: record.name for record in self.chain}

    def may_use(self, model: str) -> bool:
        """Whether its token and every parent allow this model."""
        return not self.is_limited or all(allows_model(record.models, model) for record in self.chain)


ANONYMOUS = Principal("open", Role.ADMIN)
"""Anybody, in open mode."""

ENVIRONMENT_KEY = Principal("environment", Role.ADMIN)
"""Whoever has the key that is set in the environment."""
