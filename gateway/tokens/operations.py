"""Changes tokens on behalf of somebody who may do everything, such as whoever is at the command line.

Each function is one transaction. ``gateway.admin`` does the same on behalf of callers, and asks what they may do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.audit.hash_chain import Actor
from gateway.tokens import changes, lookup
from gateway.tokens import secret as token_secret
from gateway.tokens.changes import CreatedToken, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, TokenRecord
from gateway.tokens.rights import EVERYTHING
from gateway.tokens.store import TokensMissing, TokenStore


async def read_or_empty(store: TokenStore) -> TokenHierarchy:
    """Returns the newest tokens; none where there is no store yet. Raises TokensDamaged, OSError."""
    try:
        return await store.read()
    except TokensMissing:
        return TokenHierarchy()


async def create(store: TokenStore, actor: Actor, spec: TokenSpec) -> CreatedToken:
    """Creates a token and returns it with its secret.

    Raises ChangeRefused where a child would exceed its parent, TokensDamaged, OSError.
    """
    async with store.transaction(actor) as tx:
        defaults, owner = changes.inherited_defaults(tx.tokens, spec.parent_id, EVERYTHING, tx.now)
        created = changes.new_token(spec, defaults, owner, tx.now)
        tx.apply(changes.create(tx.tokens, created.record, tx.now))
    return created


async def update(
    store: TokenStore, actor: Actor, reference: str, changed_fields: Callable[[TokenRecord], Mapping[str, Any]]
) -> RecordChange:
    """Sets fields of a token. ``changed_fields`` returns them for the newest record. Returns what became of it.

    Raises NoSuchToken, AmbiguousToken, ChangeRefused, TokensDamaged, OSError.
    """
    async with store.transaction(actor) as tx:
        record = lookup.find(tx.tokens.records, reference)
        tx.apply(changes.update(tx.tokens, record, changed_fields(record)))
    return tx.change_of(record)


async def revoke(store: TokenStore, actor: Actor, reference: str) -> RecordChange:
    """Ends what the reference means: a token with its descendants, or one replaced secret. Returns what became of it.

    Raises NoSuchToken, AmbiguousToken, TokensDamaged, OSError.
    """
    async with store.transaction(actor) as tx:
        match = lookup.find_secret(tx.tokens.records, reference)
        tx.apply(changes.revoke_match(tx.tokens, match, tx.now))
    return tx.change_of(match.record)


async def delete(store: TokenStore, actor: Actor, reference: str) -> None:
    """Deletes a token; its descendants stay, revoked. Raises NoSuchToken, AmbiguousToken, TokensDamaged, OSError."""
    async with store.transaction(actor) as tx:
        record = lookup.find(tx.tokens.records, reference)
        tx.apply(changes.delete(tx.tokens, record, tx.now))


async def rotate(store: TokenStore, actor: Actor, reference: str, grace: int) -> CreatedToken:
    """Gives a token a new secret; the old one works for ``grace`` seconds more.

    Raises NoSuchToken, AmbiguousToken, ChangeRefused, TokensDamaged, OSError.
    """
    async with store.transaction(actor) as tx:
        record = lookup.find(tx.tokens.records, reference)
        secret = token_secret.generate(token_secret.kind(record.prefix))
        tx.apply(changes.rotate(tx.tokens, record, secret, grace, tx.now))
    return CreatedToken(tx.change_of(record).record, secret)


async def import_records(store: TokenStore, actor: Actor, offered: Sequence[TokenRecord]) -> tuple[TokenRecord, ...]:
    """Adds the records that are not there yet, and returns those. Raises TokensDamaged, OSError."""
    async with store.transaction(actor) as tx:
        tx.apply(changes.import_records(tx.tokens, offered))
    return tuple(change.record for change in tx.changes)
