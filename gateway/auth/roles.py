"""Lists what each role may do, to whose tokens, and what each route requires. Pure."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType

from gateway.core.errors import Forbidden
from gateway.tokens.models import Role


class Action(StrEnum):
    """What can be done. The value is the name that clients see."""

    INFER = "inference"
    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    ROTATE = "rotate"
    REVOKE = "revoke"
    DELETE = "delete"
    ADMINISTER = "administer"
    """What concerns the gateway itself."""


class Scope(StrEnum):
    """To which tokens an action may be done, from the least to the most."""

    NOTHING = "nothing"
    SELF = "itself"
    OWN = "own"
    """The token itself, its descendants, and what its owner owns. To create: below itself."""
    ALL = "all"


def _row(**scopes: Scope) -> Mapping[Action, Scope]:
    return MappingProxyType({action: scopes.get(action.name.lower(), Scope.NOTHING) for action in Action})


_OWN, _ALL = Scope.OWN, Scope.ALL

ROLES: Mapping[Role, Mapping[Action, Scope]] = MappingProxyType(
    {
        Role.ADMIN: MappingProxyType(dict.fromkeys(Action, _ALL)),
        Role.MEMBER: _row(infer=_ALL, read=_OWN, create=_OWN, update=_OWN, rotate=_OWN, revoke=_OWN, delete=_OWN),
        Role.SERVICE: _row(infer=_ALL, read=Scope.SELF),
    }
)


class Relation(Enum):
    """What a token is to the token that asks."""

    ITSELF = "itself"
    OWN = "own"
    UNRELATED = "unrelated"


_RELATIONS_IN_SCOPE = MappingProxyType(
    {
        Scope.NOTHING: frozenset[Relation](),
        Scope.SELF: frozenset({Relation.ITSELF}),
        Scope.OWN: frozenset({Relation.ITSELF, Relation.OWN}),
        Scope.ALL: frozenset(Relation),
    }
)


def allows(role: Role, action: Action, relation: Relation) -> bool:
    """Whether a role may do this to a token in that relation."""
    return relation in _RELATIONS_IN_SCOPE[ROLES[role][action]]


class Access(Enum):
    """What a route requires. Which tokens it may then touch is decided token by token, in ``gateway.admin``."""

    PUBLIC = "public"
    """No credential is looked at."""
    ANY = "any"
    """Every valid credential."""
    INFERENCE = "inference"
    """Whoever may use models: every role."""
    MANAGE = "manage"
    """Whoever may create and change tokens."""
    ADMIN_OR_LOOPBACK = "admin or loopback"
    """An admin, or a client on the same machine that sends no credential."""

    __hash__ = object.__hash__  # that of Enum is a function in Python, called for each request


_REQUIRED_ACTION = {
    Access.ANY: Action.READ,
    Access.INFERENCE: Action.INFER,
    Access.MANAGE: Action.CREATE,
    Access.ADMIN_OR_LOOPBACK: Action.ADMINISTER,
}
ALLOWED_ROLES: Mapping[Access, frozenset[Role]] = {
    access: frozenset(role for role, row in ROLES.items() if row[action] is not Scope.NOTHING)
    for access, action in _REQUIRED_ACTION.items()
}
"""The roles that may use a route, by what it requires. Public routes ask for none."""


def refusal(role: Role, access: Access) -> Forbidden:
    """Returns why a role may not use a route that requires ``access``."""
    others = ", ".join(f"`{other}`" for other in ROLES if other in ALLOWED_ROLES[access])
    return Forbidden(f"A token with the role `{role}` may not do this; it takes the role {others}.")
