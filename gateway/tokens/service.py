"""The only writer of tokens besides the recorder of last uses. Blocking.

A change is planned on the newest tokens, under the file's lock; it is logged, and the log synced, before it is written. So no
change goes without its line. A crash between the two leaves a line for a change that nobody was told of; an error that can
be reported is logged as a line of its own.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.audit.hash_chain import Actor, AuditEvent
from gateway.tokens import changes, lookup, validation
from gateway.tokens import secret as secrets_room
from gateway.tokens.changes import CreatedToken, RecordChange, TokenSpec
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import TokenRecord
from gateway.tokens.rights import EVERYTHING
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenDocument

Plan = Callable[[TokenHierarchy, float], Sequence[RecordChange]]
"""From the newest tokens and the time to what shall change. Raises to refuse; then nothing is written."""

_NOT_LOGGED = frozenset({"hash"})


class Log(Protocol):
    """Where changes are written down before they are made."""

    def append(self, entries: Sequence[AuditEvent]) -> None:
        """Durable when it returns. Raises OSError."""


class TokenService:
    """Changes to one token file. Every method may raise TokenFileError and OSError; then nothing has changed."""

    def __init__(self, file: JsonTokenFile, log: Log, clock: Callable[[], float]) -> None:
        self._file = file
        self._log = log
        self._clock = clock

    def view(self) -> TokenHierarchy:
        return TokenHierarchy(self._file.read() or TokenDocument())

    def find(self, reference: str) -> TokenRecord:
        """Raises NoSuchToken, AmbiguousToken."""
        return lookup.find(self.view().document.tokens, reference)

    def change(self, by: Actor, plan: Plan, *, create: bool = True) -> tuple[RecordChange, ...]:
        """Plan and make a change. Answers what it touched. Raises what ``plan`` raises.

        Without ``create``, a file that is not there is an error: it may only be away for a moment.
        """
        changes_made: list[RecordChange] = []

        def changed(before: TokenDocument) -> TokenDocument:
            planned = plan(TokenHierarchy(before), self._clock())
            if not planned:
                return before
            self._log.append([_entry(by, touch) for touch in planned])
            changes_made.extend(planned)
            return changes.applied(before, planned)

        try:
            self._file.update(changed, create=create)
        except BaseException:
            if changes_made:
                with contextlib.suppress(OSError):  # the disk that refused the change may refuse this, too
                    self._log.append([_entry(by, touch, ".failed") for touch in changes_made])
            raise
        return tuple(changes_made)

    def create(self, by: Actor, spec: TokenSpec) -> CreatedToken:
        """On behalf of somebody who may do everything. Raises ChangeRefused where a child would exceed its parent."""
        made: list[CreatedToken] = []

        def plan(view: TokenHierarchy, now: float) -> Sequence[RecordChange]:
            made.append(
                changes.new_token(spec, *changes.inherited_defaults(view, spec.parent_id, EVERYTHING, now), now)
            )
            return changes.created(view, made[-1].record, now)

        self.change(by, plan)
        return made[-1]

    def revoke(self, by: Actor, reference: str) -> RecordChange:
        """End what the reference means: a token and all below it, or one replaced secret. Raises as ``find``."""
        return self._change_found(by, reference, changes.ended)

    def delete(self, by: Actor, reference: str) -> RecordChange:
        """Raises NoSuchToken, AmbiguousToken."""
        return self._change_found(by, reference, lambda view, found, now: changes.deleted(view, found.record, now))

    def rotate(self, by: Actor, reference: str, grace: int) -> CreatedToken:
        """``grace`` in seconds. Raises NoSuchToken, AmbiguousToken, ChangeRefused."""
        secrets: list[str] = []

        def plan(view: TokenHierarchy, found: SecretMatch, now: float) -> tuple[RecordChange, ...]:
            secrets.append(secrets_room.generate(secrets_room.kind(found.record.prefix)))
            return changes.rotated(view, found.record, secrets[-1], grace, now)

        return CreatedToken(self._change_found(by, reference, plan).record, secrets[-1])

    def import_file(self, by: Actor, data: bytes) -> tuple[TokenRecord, ...]:
        """Add the tokens of another file, in either form, that are not here yet. Answers those added."""
        offered = codec.decode(data).tokens
        changes_made = self.change(by, lambda view, now: changes.imported(view, offered))
        return tuple(touch.record for touch in changes_made)

    def _change_found(
        self, by: Actor, reference: str, plan: Callable[[TokenHierarchy, SecretMatch, float], Sequence[RecordChange]]
    ) -> RecordChange:
        """The touch of what was found itself; where nothing was left to change, one that changes nothing."""
        found: list[TokenRecord] = []

        def planned(view: TokenHierarchy, now: float) -> Sequence[RecordChange]:
            one = lookup.find_secret(view.document.tokens, reference)
            found.append(one.record)
            return plan(view, one, now)

        changes_made = self.change(by, planned)
        unchanged = RecordChange("", found[-1], found[-1])
        return next((touch for touch in changes_made if touch.record.id == found[-1].id), unchanged)


def _entry(by: Actor, touch: RecordChange, suffix: str = "") -> AuditEvent:
    return AuditEvent(
        actor=by,
        action=touch.action + suffix,
        token_id=touch.record.id,
        token=touch.record.name,
        changes=_differences(touch.before, touch.after),
    )


def _differences(before: TokenRecord | None, after: TokenRecord | None) -> dict[str, tuple[Any, Any]]:
    """Field by field. Of a record that comes or goes, what is set in it."""
    old = _logged(before) if before else {}
    new = _logged(after) if after else {}
    return {
        name: (old.get(name), new.get(name))
        for name in validation.READERS
        if name not in _NOT_LOGGED
        and (old.get(name) != new.get(name) if old and new else old.get(name) or new.get(name))
    }


def _logged(record: TokenRecord) -> dict[str, Any]:
    content = validation.as_json(record)
    previous = [{key: value for key, value in old.items() if key != "hash"} for old in content["previous_secrets"]]
    return {**content, "previous_secrets": previous}
