"""Who asks for a change to tokens, as use cases and the audit log need it."""

from gateway.admin.authorizer import Requester
from gateway.audit.hash_chain import Actor
from gateway.auth.principal import ANONYMOUS
from gateway.http.context import RequestContext


def requester_of(ctx: RequestContext) -> Requester:
    """Returns the authenticated caller, and how the audit log names it."""
    principal = ctx.caller
    kind = "token" if principal.secret_match else "open" if principal is ANONYMOUS else "environment"
    actor = Actor(kind, principal.name, principal.token_id, ctx.client_address, ctx.id)
    return Requester(principal, actor)


def secret_holder_of(ctx: RequestContext) -> Actor:
    """Returns how the audit log names somebody who shows a secret in order to revoke it, and is not otherwise known."""
    return Actor("secret", "whoever holds the secret", None, ctx.client_address, ctx.id)
