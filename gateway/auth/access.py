"""What a route asks of its caller. Every row of the route table names one of these; there is no default."""

from enum import Enum

from gateway.auth.principal import Principal
from gateway.errors import Forbidden
from gateway.tokens.record import Role


class Access(Enum):
    PUBLIC = "public"
    """No credential is looked at."""
    ANY = "any"
    """Every valid credential."""
    INFERENCE = "inference"
    """Whoever may use models: every role."""
    ADMIN = "admin"
    ADMIN_OR_LOOPBACK = "admin or loopback"
    """An admin, or a client on the same machine that shows no credential."""


_ROLES: dict[Access, frozenset[Role]] = {
    Access.ANY: frozenset(Role),
    Access.INFERENCE: frozenset(Role),
    Access.ADMIN: frozenset({Role.ADMIN}),
    Access.ADMIN_OR_LOOPBACK: frozenset({Role.ADMIN}),
}


def authorize(principal: Principal, access: Access) -> None:
    """Raises Forbidden."""
    if principal.role not in _ROLES[access]:
        raise Forbidden(f"A token with the role `{principal.role}` may not do this; it takes the role `admin`.")
