"""Finds the principal for a credential, in four modes. Whatever is unclear is refused."""

import hmac
import logging
from collections.abc import Callable

from gateway.auth.credentials import Credential, mistake_in
from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Mode, Principal
from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated, UnknownCredential
from gateway.observability.redaction import redact_secret
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens import secret as token_secret
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status
from gateway.tokens.store import NewestTokens, StoreState

log = logging.getLogger(__name__)

_MALFORMED = "it is not printable ASCII of at most 512 characters behind `Bearer`"


class Authenticator:
    """Decides who a credential belongs to. Open mode ends for good, for every worker, with the first token that appears."""

    def __init__(
        self,
        environment_key: str | None,
        tokens: NewestTokens,
        clock: Callable[[], float],
        enforcement: SharedLatch,
        allow_open: bool = False,
    ) -> None:
        """``clock`` tells seconds since the epoch; ``allow_open`` serves other machines in open mode, too."""
        self._set_key(environment_key, allow_open)
        self._tokens = tokens
        self._clock = clock
        self._enforcement = enforcement
        self._is_enforcing = False
        """What this worker knows of ``enforcement``, which never changes back."""
        self._principals: dict[str, Principal] = {}
        """Principals found since the tokens last changed, by the hash of their secret. They may have expired meanwhile."""
        self._has_served = False
        """Whether open mode, if it ends now, has been in force before."""
        tokens.subscribe(self._on_tokens_changed)
        self._on_tokens_changed(tokens.tokens)
        self._has_served = True

    def use(self, environment_key: str | None, allow_open: bool) -> None:
        """Replaces the key that is set in the environment, and who is served in open mode. A key ends open mode for good."""
        self._set_key(environment_key, allow_open)
        self._on_tokens_changed(self._tokens.tokens)

    def _set_key(self, environment_key: str | None, allow_open: bool) -> None:
        self._environment_digest = token_secret.digest(environment_key) if environment_key else None
        self._allow_open = allow_open

    def _on_tokens_changed(self, tokens: TokenHierarchy) -> None:
        """Forgets principals that the old tokens made, and ends open mode even if nobody asks meanwhile."""
        self._principals = {}
        if not self._is_enforcing and (self._environment_digest is not None or len(tokens) > 0):
            was_open = self._has_served and not self._enforcement.is_set
            self._enforcement.set()
            if was_open:
                found = "a token" if self._environment_digest is None else "an environment key"
                log.warning(f"there is {found} now: from here on every client needs a key")

    @property
    def mode(self) -> Mode:
        """How callers are told apart now."""
        if self._environment_digest is not None:
            return Mode.ENVIRONMENT_AND_FILE if len(self._tokens.tokens) > 0 else Mode.ENVIRONMENT
        return Mode.OPEN if self._is_open() else Mode.FILE

    def _is_open(self) -> bool:
        """Returns whether clients of this machine are served without a credential."""
        if not self._is_enforcing:
            self._is_enforcing = self._enforcement.is_set
        return not self._is_enforcing

    def authenticate(self, credential: Credential | None, find_refusal: Callable[[], str | None]) -> Principal:
        """Returns who is calling. ``find_refusal`` is asked in open mode only: why the client is not on this machine.

        Raises Unauthenticated for a missing or bad credential, UnknownCredential for one that was never valid here,
        Forbidden in open mode for a client on another machine, StoreUnavailable in open mode over a damaged store.
        """
        if self._is_open():
            return self._authenticate_open(find_refusal)
        if credential is None:
            raise _no_credential()
        if credential.secret is None:
            raise _invalid(credential.shown, credential.mistake or _MALFORMED)
        digest = token_secret.digest(credential.secret)
        if self._is_environment_digest(digest):
            return ENVIRONMENT_KEY
        principal = self._principals.get(digest)
        if principal is not None and (not principal.expires or self._clock() < principal.expires_at):
            return principal
        return self._authenticate_token(credential.secret, digest)

    def is_environment_key(self, secret: str) -> bool:
        """Whether this is the key that is set in the environment."""
        return self._is_environment_digest(token_secret.digest(secret))

    def _is_environment_digest(self, digest: str) -> bool:
        return self._environment_digest is not None and hmac.compare_digest(digest, self._environment_digest)

    def _authenticate_token(self, secret: str, digest: str) -> Principal:
        if token_secret.has_bad_checksum(secret):
            raise _invalid(redact_secret(secret), "its checksum is wrong, so a character is missing or mistyped")
        tokens = self._tokens.tokens
        match = tokens.find_by_digest(digest)
        if match is None:
            reason = mistake_in(secret) or "it is not known here"
            raise UnknownCredential(
                f"Invalid API key provided: {redact_secret(secret)} ({reason}).", code="invalid_api_key"
            )
        status = tokens.secret_status(match, self._clock())
        if status is not Status.ACTIVE:
            raise _invalid(redact_secret(secret), f"it is {status}")
        principal = self._principals[digest] = Principal.of(match, tokens.parents(match.record) or ())
        return principal

    def _authenticate_open(self, find_refusal: Callable[[], str | None]) -> Principal:
        if self._tokens.state is StoreState.DAMAGED:
            # There are tokens and nobody knows which: they may well forbid this caller.
            raise StoreUnavailable("The token file cannot be read at the moment.")
        if not self._allow_open and (refusal := find_refusal()) is not None:
            raise Forbidden(
                f"This gateway has no keys yet, so it serves only clients on its own machine. This request is refused "
                f"because {refusal}. To serve others, create a token (python token_manager.py create NAME), or set "
                "FREEGPT_API_KEY, or set GATEWAY_ALLOW_OPEN=on."
            )
        return ANONYMOUS


def _no_credential() -> Unauthenticated:
    return Unauthenticated(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    )


def _invalid(redacted: str, reason: str) -> Unauthenticated:
    return Unauthenticated(f"Invalid API key provided: {redacted} ({reason}).", code="invalid_api_key")
