"""The parts of a server that manage tokens, put together as the composition root does."""

from pathlib import Path

from gateway.admin.authorizer import Requester
from gateway.admin.tokens import TokenManagement
from gateway.audit.hash_chain import Actor
from gateway.audit.log import AuditLog
from gateway.auth.authenticator import Authenticator
from gateway.auth.client_address import Client
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.core.clock import SteadyClock
from gateway.core.errors import GatewayError, StoreUnavailable, Unauthenticated
from gateway.observability.metrics import Metrics
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import UseKey
from tests.campaigns.life import TOKENS, Order, audit_path, fields

HERE = Client("127.0.0.1", True)


class Gateway:
    """The server's parts, put together as the composition root does."""

    def __init__(self, folder: Path, clock: SteadyClock, enforcement: SharedLatch, key: str | None) -> None:
        store = JsonTokenStore(JsonTokenFile(folder / TOKENS, 2.0), AuditLog(audit_path(folder), clock, 2.0), clock)
        self.clock = clock
        self.enforcement = enforcement
        self.watcher = TokenCache(store)
        self.management = TokenManagement(store, self.watcher, clock)
        self.recorder = LastUsedWriter(store, Metrics())
        self.authenticator = Authenticator(key, self.watcher, clock, enforcement)

    def let_in(self, text: str) -> tuple[str, Principal | None]:
        """How the secret is taken, and for whose."""
        try:
            principal = self.authenticator.authenticate(Credential(text), lambda: HERE)
        except Unauthenticated as error:
            said = str(error)
            return next((status for status in ("expired", "revoked") if f"it is {status}" in said), "unknown"), None
        return ("open", None) if principal is ANONYMOUS else ("active", principal)

    def note_use(self, principal: Principal) -> None:
        assert principal.secret_match is not None
        old = principal.secret_match.previous
        used = UseKey(principal.secret_match.record.id, old and old.hash)
        self.recorder.note(used, self.clock(), HERE.address if old else None)

    async def do(self, order: Order, principal: Principal) -> Order:
        """As ``Hands.do``."""
        caller = Requester(principal, Actor("token", "tester", principal.token_id))
        try:
            return await self._do(order, caller) or {}
        except StoreUnavailable as error:
            return {"failed": str(error)}
        except GatewayError as error:
            return {"refused": type(error).__name__}

    async def _do(self, order: Order, caller: Requester) -> Order | None:
        manage, reference = self.management, order.get("reference", "")
        match order["verb"]:
            case "create":
                made = await manage.create(caller, TokenSpec(**fields(order["wish"])))
                return {"id": made.record.id, "secret": made.secret}
            case "rotate":
                made = await manage.rotate(caller, reference, order["grace"])
                return {"id": made.record.id, "secret": made.secret}
            case "patch":
                await manage.update(caller, reference, fields(order["values"]))
            case "revoke":
                await manage.revoke(caller, reference)
            case "revoke_secret":
                await manage.revoke_secret(caller.actor, order["secret"])
            case "delete":
                await manage.delete(caller, reference)
        return None
