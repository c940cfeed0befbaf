"""An immutable set of tokens, and what follows from their kinship. Pure.

A child never outlives its parent, nor may it do more, whatever its own record says: rights are looked up along the whole
line, so that narrowing a parent narrows its children at once.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gateway.tokens.models import PreviousSecret, Role, Status, TokenRecord
from gateway.tokens.stores.json_format import TokenDocument


class SecretMatch(NamedTuple):
    """Whose secret it is. ``previous`` is set where a rotation has replaced that secret."""

    record: TokenRecord
    previous: PreviousSecret | None


class TokenHierarchy:
    """The tokens of a document, found by id and by the digest of their secret."""

    def __init__(self, document: TokenDocument) -> None:
        self.document = document
        self._by_id = {record.id: record for record in document.tokens}
        self._by_hash = {record.hash: SecretMatch(record, None) for record in document.tokens}
        for record in document.tokens:
            self._by_hash.update({old.hash: SecretMatch(record, old) for old in record.previous_secrets})

    def find_by_digest(self, digest: str) -> SecretMatch | None:
        return self._by_hash.get(digest)

    def find_by_id(self, token_id: str) -> TokenRecord | None:
        return self._by_id.get(token_id)

    def parents(self, record: TokenRecord) -> tuple[TokenRecord, ...] | None:
        """Its line upwards, the nearest first. None where the line is broken: a parent is gone, or its own child."""
        line: list[TokenRecord] = []
        seen = {record.id}
        while record.parent_id is not None:
            parent = self._by_id.get(record.parent_id)
            if parent is None or parent.id in seen:
                return None
            seen.add(parent.id)
            line.append(parent)
            record = parent
        return tuple(line)

    def status(self, record: TokenRecord, now: float) -> Status:
        """The record's own status, ended also by the end of a parent: one that is revoked, expired or gone."""
        own = record.status(now)
        if own is not Status.ACTIVE or record.parent_id is None:
            return own
        line = self.parents(record)
        if line is None:
            return Status.REVOKED
        ended = (status for parent in line if (status := parent.status(now)) is not Status.ACTIVE)
        return next(ended, Status.ACTIVE)

    def secret_status(self, match: SecretMatch, now: float) -> Status:
        """The status of that very secret: a replaced one may end before its token does."""
        status = self.status(match.record, now)
        if status is not Status.ACTIVE or match.previous is None:
            return status
        return match.previous.status(now)

    def role(self, record: TokenRecord) -> Role:
        """Its role, or the lowest among its parents'."""
        line = self.parents(record) if record.parent_id is not None else ()
        return min((record.role, *(parent.role for parent in line or ())), key=lambda role: role.rank)

    def descendants(self, record: TokenRecord) -> Iterator[TokenRecord]:
        """Children, their children and so on; parents come before their children."""
        children: dict[str, list[TokenRecord]] = {}
        for other in self.document.tokens:
            if other.parent_id is not None:
                children.setdefault(other.parent_id, []).append(other)
        seen = {record.id}
        waiting = [record]
        while waiting:
            for child in children.get(waiting.pop(0).id, ()):
                if child.id not in seen:
                    seen.add(child.id)
                    waiting.append(child)
                    yield child

    def __len__(self) -> int:
        return len(self._by_id)
