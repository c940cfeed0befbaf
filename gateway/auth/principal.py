"""Who is calling."""

from enum import Enum

import msgspec

from gateway.tokens.record import Role, TokenRecord, allows_model


class Mode(Enum):
    """How callers are told apart. The value is the name that ``/healthz`` and the banner show."""

    OPEN = "open"
    ENVIRONMENT = "environment"
    ENVIRONMENT_AND_FILE = "environment+file"
    FILE = "file"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. ``token`` is None for the environment key and in open mode."""

    name: str
    role: Role
    token: TokenRecord | None = None

    @property
    def token_id(self) -> str | None:
        return self.token.id if self.token else None

    @property
    def is_test(self) -> bool:
        """Test tokens are answered by the echo backend, whatever the model."""
        return self.token is not None and self.token.prefix.startswith("sk_test_")

    @property
    def is_limited(self) -> bool:
        """Whether only certain models are allowed."""
        return self.token is not None and self.token.models is not None

    def may_use(self, model: str) -> bool:
        return self.token is None or allows_model(self.token.models, model)


ANYBODY = Principal("open", Role.ADMIN)
ENVIRONMENT = Principal("environment", Role.ADMIN)
