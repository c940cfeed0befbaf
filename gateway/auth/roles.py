"""What each role may do, and to whose tokens: the whole table. Pure."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType

from gateway.tokens.hierarchy import TokenView
from gateway.tokens.models import Role, TokenRecord


class Verb(StrEnum):
    INFER = "inference"
    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    ROTATE = "rotate"
    REVOKE = "revoke"
    DELETE = "delete"
    ADMINISTER = "administer"
    """What concerns the gateway itself."""


class Reach(StrEnum):
    """How far a verb goes, from the least to the most."""

    NOTHING = "nothing"
    SELF = "itself"
    OWN = "own"
    """Itself, what is below it, and what its owner owns. To create: below itself."""
    ALL = "all"


def _row(**verbs: Reach) -> Mapping[Verb, Reach]:
    return MappingProxyType({verb: verbs.get(verb.name.lower(), Reach.NOTHING) for verb in Verb})


_OWN, _ALL = Reach.OWN, Reach.ALL

ROLES: Mapping[Role, Mapping[Verb, Reach]] = MappingProxyType(
    {
        Role.ADMIN: MappingProxyType(dict.fromkeys(Verb, _ALL)),
        Role.MEMBER: _row(infer=_ALL, read=_OWN, create=_OWN, update=_OWN, rotate=_OWN, revoke=_OWN, delete=_OWN),
        Role.SERVICE: _row(infer=_ALL, read=Reach.SELF),
    }
)


class Kinship(Enum):
    """What a token is to whoever asks."""

    ITSELF = "itself"
    OWN = "own"
    STRANGER = "stranger"


_REACHED = MappingProxyType(
    {
        Reach.NOTHING: frozenset[Kinship](),
        Reach.SELF: frozenset({Kinship.ITSELF}),
        Reach.OWN: frozenset({Kinship.ITSELF, Kinship.OWN}),
        Reach.ALL: frozenset(Kinship),
    }
)


def kinship(view: TokenView, caller: TokenRecord | None, other: TokenRecord) -> Kinship:
    """Two tokens without an owner are strangers: nobody owns them both. ``caller`` is None for who holds no token."""
    if caller is None:
        return Kinship.STRANGER
    if caller.id == other.id:
        return Kinship.ITSELF
    if caller.owner is not None and caller.owner == other.owner:
        return Kinship.OWN
    is_below = any(parent.id == caller.id for parent in view.parents(other) or ())
    return Kinship.OWN if is_below else Kinship.STRANGER


def reaches(role: Role, verb: Verb, kin: Kinship) -> bool:
    return kin in _REACHED[ROLES[role][verb]]
