"""Decides who may use which route of the upstream. Pure."""

from collections.abc import Collection

from gateway.auth.principal import Principal
from gateway.core import upstream_routes
from gateway.core.errors import Forbidden
from gateway.tokens.models import Role

_SHOWN = 100
"""Characters of a path in a message."""


def check_upstream_access(principal: Principal, method: str, path: str, opened: Collection[str]) -> None:
    """Lets inference pass, what an operator has opened by name, and admins. ``path`` is what follows ``/v1/``.

    Raises Forbidden for anything else, and for tokens that may use no model: they reach nothing of the upstream.
    """
    if principal.has_no_models:
        raise Forbidden("This token may use no model, so nothing of the upstream is open to it.")
    if principal.role is Role.ADMIN or upstream_routes.is_inference(method, path):
        return
    if upstream_routes.is_administrative(path):
        raise Forbidden(f"/v1/{path[:_SHOWN]} administers the upstream or its account: it is for admins alone.")
    if upstream_routes.opening_prefix(path, opened) is None:
        raise Forbidden(
            f"{method} /v1/{path[:_SHOWN]} is not inference, and only admins may use it. Whoever runs the gateway can open it "
            f"to all tokens: GATEWAY_PASS_THROUGH={upstream_routes.collection(path)[:_SHOWN]}."
        )
