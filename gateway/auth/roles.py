"""What each role may do, and to whose tokens: the whole table. Pure."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType

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
