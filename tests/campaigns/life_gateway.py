"""The parts of a server that manage tokens, put together as the composition root does."""

from pathlib import Path

from gateway.admin.authorizer import Requester
from gateway.admin.tokens import TokenManagement
from gateway.audit.hash_chain import Actor
from gateway.audit.log import AuditLog
from gateway.auth.authenticator import Authenticator
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.core.clock import SteadyClock
from gateway.core.errors import GatewayError, StoreUnavailable, Unauthenticated
from gateway.observability.metrics import Metrics
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.models import UseKey
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from tests.campaigns.life import TOKENS, Command, audit_path, spec_fields


class Gateway:
    """The server's parts, put together as the composition root does."""

    def __init__(self, folder: Path, clock: SteadyClock, enforcement: SharedLatch, key: str | None) -> None:
        store = JsonTokenStore(JsonTokenFile(folder / TOKENS, 2.0), AuditLog(audit_path(folder), clock, 2.0), clock)
        self.clock = clock
        self.enforcement = enforcement
        self.token_cache = TokenCache(store)
        self.management = TokenManagement(store, self.token_cache, clock)
        self.last_used = LastUsedWriter(store, Metrics())
        self.authenticator = Authenticator(key, self.token_cache, clock, enforcement)

    def authenticate(self, text: str) -> tuple[str, Principal | None]:
        """Returns the status of the secret, and its principal where it is active."""
        try:
            principal = self.authenticator.authenticate(Credential(text), lambda: None)
        except Unauthenticated as error:
            message = str(error)
            return next((status for status in ("expired", "revoked") if f"it is {status}" in message), "unknown"), None
        return ("open", None) if principal is ANONYMOUS else ("active", principal)

    def note_use(self, principal: Principal) -> None:
        assert principal.secret_match is not None
        old = principal.secret_match.previous
        used = UseKey(principal.secret_match.record.id, old and old.hash)
        self.last_used.note(used, self.clock(), "127.0.0.1" if old else None)

    async def execute(self, command: Command, principal: Principal) -> Command:
        """Returns what ``CommandRunner.execute`` does."""
        caller = Requester(principal, Actor("token", "tester", principal.token_id))
        try:
            return await self._execute(command, caller) or {}
        except StoreUnavailable as error:
            return {"failed": str(error)}
        except GatewayError as error:
            return {"refused": type(error).__name__}

    async def _execute(self, command: Command, caller: Requester) -> Command | None:
        manage, reference = self.management, command.get("reference", "")
        match command["verb"]:
            case "create":
                made = await manage.create(caller, TokenSpec(**spec_fields(command["spec"])))
                return {"id": made.record.id, "secret": made.secret}
            case "rotate":
                made = await manage.rotate(caller, reference, command["grace"])
                return {"id": made.record.id, "secret": made.secret}
            case "patch":
                await manage.update(caller, reference, spec_fields(command["values"]))
            case "revoke":
                await manage.revoke(caller, reference)
            case "revoke_secret":
                await manage.revoke_secret(caller.actor, command["secret"])
            case "delete":
                await manage.delete(caller, reference)
        return None
