"""How the audit log names those who ask for changes."""

import pytest

from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Principal
from gateway.http.requester import requester_of, secret_holder_of
from tests.support.connection import context as make_context
from tests.support.inference import token_with


@pytest.mark.parametrize(
    ("principal", "kind", "name", "token_id"),
    [
        (ANONYMOUS, "open", "open", None),
        (ENVIRONMENT_KEY, "environment", "environment", None),
        (token_with(None), "token", "t", "tok_1"),
    ],
)
def test_a_caller_is_named_by_how_it_authenticated(
    principal: Principal, kind: str, name: str, token_id: str | None
) -> None:
    ctx = make_context()
    ctx.principal = principal
    requester = requester_of(ctx)
    actor = requester.actor
    assert requester.principal is principal
    assert (actor.kind, actor.name, actor.token_id, actor.address, actor.request_id) == (
        kind, name, token_id, "127.0.0.1", ctx.id,
    )  # fmt: skip


def test_somebody_who_only_shows_a_secret_has_no_name() -> None:
    ctx = make_context()
    actor = secret_holder_of(ctx)
    assert (actor.kind, actor.token_id, actor.request_id) == ("secret", None, ctx.id)
