"""From a credential to a principal, in four modes; fails closed."""

import hmac
from collections.abc import Callable
from typing import Protocol

from gateway.auth.client_address import Client
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Mode, Principal
from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated, UnknownCredential
from gateway.observability.redaction import redact_secret
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens import secret as secrets_room
from gateway.tokens.cache import FileState
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status


class Tokens(Protocol):
    """The newest view of the stored tokens."""

    view: TokenHierarchy
    state: FileState


class Authenticator:
    """Decides who a credential belongs to."""

    def __init__(
        self,
        environment_key: str | None,
        tokens: Tokens,
        clock: Callable[[], float],
        enforcement: SharedLatch,
        allow_open: bool = False,
    ) -> None:
        self._environment_digest = secrets_room.digest(environment_key) if environment_key else None
        self._tokens = tokens
        self._clock = clock
        self._enforcement = enforcement
        self._allow_open = allow_open
        self._known: dict[str, Principal] = {}
        """Who has called since the tokens of ``_known_of`` are the newest."""
        self._known_of = tokens.view
        self.on_tokens_changed(tokens.view)

    def on_tokens_changed(self, view: TokenHierarchy) -> None:
        """Called with each new view: the first token that appears ends openness for good, even if nobody asks meanwhile."""
        if self._environment_digest is not None or len(view) > 0:
            self._enforcement.set()

    @property
    def mode(self) -> Mode:
        self.on_tokens_changed(self._tokens.view)
        holds_tokens = len(self._tokens.view) > 0
        if self._environment_digest is not None:
            return Mode.ENVIRONMENT_AND_FILE if holds_tokens else Mode.ENVIRONMENT
        return Mode.FILE if self._enforcement.is_set else Mode.OPEN

    def authenticate(self, credential: Credential | None, client: Client) -> Principal:
        """Raises Unauthenticated, Forbidden (open mode, from afar), StoreUnavailable."""
        if self.mode is Mode.OPEN:
            return self._admit_anybody(client)
        if credential is None:
            raise _no_credential()
        if credential.secret is None:
            raise _invalid("***", "it is not printable ASCII of at most 512 characters behind `Bearer`")
        digest = secrets_room.digest(credential.secret)
        if self._is_environment(digest):
            return ENVIRONMENT_KEY
        return self._find(credential.secret, digest)

    def is_environment_key(self, secret: str) -> bool:
        return self._is_environment(secrets_room.digest(secret))

    def _is_environment(self, digest: str) -> bool:
        return self._environment_digest is not None and hmac.compare_digest(digest, self._environment_digest)

    def _find(self, secret: str, digest: str) -> Principal:
        if secrets_room.has_bad_checksum(secret):
            raise _invalid(redact_secret(secret), "its checksum is wrong, so a character is missing or mistyped")
        view = self._tokens.view
        match = view.find_by_digest(digest)
        if match is None:
            raise UnknownCredential(
                f"Invalid API key provided: {redact_secret(secret)} (it is not known here).", code="invalid_api_key"
            )
        status = view.secret_status(match, self._clock())
        if status is not Status.ACTIVE:
            raise _invalid(redact_secret(secret), f"it is {status}")
        if view is not self._known_of:
            self._known_of, self._known = view, {}
        principal = self._known.get(digest)
        if principal is None:
            record = match.record
            parents = view.parents(record) or ()
            principal = self._known[digest] = Principal(record.name, view.role(record), match, parents, digest)
        return principal

    def _admit_anybody(self, client: Client) -> Principal:
        if self._tokens.state is FileState.DAMAGED:
            # There is a token file and nobody knows what is in it: it may well forbid this caller.
            raise StoreUnavailable("The token file cannot be read at the moment.")
        if not (client.is_local or self._allow_open):
            raise Forbidden(
                "This gateway has no keys yet, so it serves only clients on its own machine. To serve others, create a "
                "token (python token_manager.py create NAME), or set FREEGPT_API_KEY, or set GATEWAY_ALLOW_OPEN=on."
            )
        return ANONYMOUS


def _no_credential() -> Unauthenticated:
    return Unauthenticated(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    )


def _invalid(masked: str, reason: str) -> Unauthenticated:
    return Unauthenticated(f"Invalid API key provided: {masked} ({reason}).", code="invalid_api_key")
