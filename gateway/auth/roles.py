"""Lists what each role may do, to whose tokens, and what each route requires. Pure."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType

from gateway.auth.principal import Principal
from gateway.core.errors import Forbidden
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Role, TokenRecord


class Action(StrEnum):
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
    """How far a verb goes, from the least to the most."""

    NOTHING = "nothing"
    SELF = "itself"
    OWN = "own"
    """Itself, what is below it, and what its owner owns. To create: below itself."""
    ALL = "all"


def _row(**verbs: Scope) -> Mapping[Action, Scope]:
    return MappingProxyType({action: verbs.get(action.name.lower(), Scope.NOTHING) for action in Action})


_OWN, _ALL = Scope.OWN, Scope.ALL

ROLES: Mapping[Role, Mapping[Action, Scope]] = MappingProxyType(
    {
        Role.ADMIN: MappingProxyType(dict.fromkeys(Action, _ALL)),
        Role.MEMBER: _row(infer=_ALL, read=_OWN, create=_OWN, update=_OWN, rotate=_OWN, revoke=_OWN, delete=_OWN),
        Role.SERVICE: _row(infer=_ALL, read=Scope.SELF),
    }
)


class Relation(Enum):
    """What a token is to whoever asks."""

    ITSELF = "itself"
    OWN = "own"
    STRANGER = "stranger"


_REACHED = MappingProxyType(
    {
        Scope.NOTHING: frozenset[Relation](),
        Scope.SELF: frozenset({Relation.ITSELF}),
        Scope.OWN: frozenset({Relation.ITSELF, Relation.OWN}),
        Scope.ALL: frozenset(Relation),
    }
)


def relation(view: TokenHierarchy, caller: TokenRecord | None, other: TokenRecord) -> Relation:
    """Two tokens without an owner are strangers: nobody owns them both. ``caller`` is None for who holds no token."""
    if caller is None:
        return Relation.STRANGER
    if caller.id == other.id:
        return Relation.ITSELF
    if caller.owner is not None and caller.owner == other.owner:
        return Relation.OWN
    is_below = any(parent.id == caller.id for parent in view.parents(other) or ())
    return Relation.OWN if is_below else Relation.STRANGER


def allows(role: Role, action: Action, relation: Relation) -> bool:
    return relation in _REACHED[ROLES[role][action]]


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
