"""What a route asks of its caller. Every row of the route table names one of these; there is no default."""

from enum import Enum

from gateway.auth.principal import Principal
from gateway.auth.roles import ROLES, Action, Scope
from gateway.core.errors import Forbidden


class Access(Enum):
    """Which tokens a route may then touch is asked object by object, in ``management``."""

    PUBLIC = "public"
    """No credential is looked at."""
    ANY = "any"
    """Every valid credential."""
    INFERENCE = "inference"
    """Whoever may use models: every role."""
    MANAGE = "manage"
    """Whoever may create and change tokens."""
    ADMIN = "admin"
    ADMIN_OR_LOOPBACK = "admin or loopback"
    """An admin, or a client on the same machine that shows no credential."""


_TAKES = {
    Access.ANY: Action.READ,
    Access.INFERENCE: Action.INFER,
    Access.MANAGE: Action.CREATE,
    Access.ADMIN: Action.ADMINISTER,
    Access.ADMIN_OR_LOOPBACK: Action.ADMINISTER,
}
_ROLES = {
    access: frozenset(role for role, row in ROLES.items() if row[action] is not Scope.NOTHING)
    for access, action in _TAKES.items()
}


def authorize(principal: Principal, access: Access) -> None:
    """Raises Forbidden."""
    if principal.role not in _ROLES[access]:
        others = ", ".join(f"`{role}`" for role in ROLES if role in _ROLES[access])
        raise Forbidden(f"A token with the role `{principal.role}` may not do this; it takes the role {others}.")
