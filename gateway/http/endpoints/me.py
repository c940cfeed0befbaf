"""Serves ``/api/me``: who the caller is, what it may do, and what remains of each limit."""

from typing import Any

from gateway.admin.authorizer import Authorizer
from gateway.admin.tokens import TokenManagement
from gateway.auth.principal import ANONYMOUS
from gateway.auth.roles import ROLES
from gateway.core.clock import to_iso
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.response import Response, json_response
from gateway.inference.admission import Admission
from gateway.limits import presentation
from gateway.tokens import serializers


class MeEndpoints:
    """Serves the caller's own view."""

    def __init__(self, management: TokenManagement, admission: Admission) -> None:
        self._management = management
        self._admission = admission

    async def read(self, ctx: RequestContext) -> Response:
        params.parse_query(ctx, {})
        authorizer = await self._management.authorizer(ctx.caller)
        usage = await self._admission.current_usage(ctx.caller.limits)
        now = int(authorizer.now * 1000)
        principal = _describe(authorizer, is_open=ctx.caller is ANONYMOUS)
        return json_response(
            200, {**principal, "left": [presentation.describe_limit(limit, counter, now) for limit, counter in usage]}
        )


def _describe(authorizer: Authorizer, is_open: bool) -> dict[str, Any]:
    """Returns what applies to the caller, including what it inherits from parents. Every one of the limits applies."""
    kind = "open" if is_open else "environment"
    record = authorizer.record
    chain = (record, *(authorizer.tokens.parents(record) or ())) if record else ()
    return {
        "kind": "token" if record else kind,
        "name": record.name if record else kind,
        "role": authorizer.rights.role.value,
        "owner": record.owner if record else None,
        "may": {action.value: scope.value for action, scope in ROLES[authorizer.rights.role].items()},
        "models": authorizer.rights.common_models,
        "limits": [{"token_id": token.id, **token.limits.as_json()} for token in chain if token.limits is not None],
        "expires_at": to_iso(authorizer.rights.expires_at),
        "is_test": authorizer.rights.is_test,
        "token": serializers.to_public_json(authorizer.tokens, record, authorizer.now) if record else None,
    }
