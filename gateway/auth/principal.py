"""Who is calling."""

from enum import Enum

import msgspec

from gateway.limits.demands import Line
from gateway.tokens.record import Role, TokenRecord, allows_model
from gateway.tokens.secret import TEST
from gateway.tokens.view import Held


class Mode(Enum):
    """How callers are told apart. The value is the name that ``/healthz`` and the banner show."""

    OPEN = "open"
    ENVIRONMENT = "environment"
    ENVIRONMENT_AND_FILE = "environment+file"
    FILE = "file"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller. ``held`` is None for the environment key and in open mode."""

    name: str
    role: Role
    held: Held | None = None
    parents: tuple[TokenRecord, ...] = ()
    """What its rights depend on, too."""
    secret_hash: str = ""
    """Which secret was shown: another one of the same token may live on when this one has ended."""

    @property
    def token_id(self) -> str | None:
        return self.held.record.id if self.held else None

    @property
    def is_test(self) -> bool:
        """Test tokens are answered by the echo backend, whatever the model."""
        return any(line.prefix.startswith(TEST) for line in self._line())

    @property
    def is_limited(self) -> bool:
        """Whether only certain models are allowed."""
        return any(line.models is not None for line in self._line())

    @property
    def limits(self) -> Line:
        """Its own limits and its parents'; each set holds."""
        if self.held is None:
            return ()
        return tuple([(record.id, record.limits) for record in self._line() if record.limits is not None])

    @property
    def names(self) -> dict[str, str]:
        """Of its token and its parents, by their ids: its own first."""
        return {record.id: record.name for record in self._line()}

    def may_use(self, model: str) -> bool:
        return all(allows_model(line.models, model) for line in self._line())

    def _line(self) -> tuple[TokenRecord, ...]:
        return () if self.held is None else (self.held.record, *self.parents)


ANYBODY = Principal("open", Role.ADMIN)
ENVIRONMENT = Principal("environment", Role.ADMIN)
