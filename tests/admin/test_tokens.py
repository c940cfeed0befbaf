"""What only shows when something changes between the gate and the lock."""

import pytest

from gateway.admin.authorizer import authorizer_for
from gateway.admin.tokens import new_token
from gateway.auth.principal import Principal
from gateway.core.errors import Forbidden
from gateway.tokens.changes import TokenSpec
from gateway.tokens.hierarchy import SecretMatch
from tests.support.tokens import NOW
from tests.tokens.test_hierarchy import token, view


def test_whoever_has_just_become_a_service_creates_nothing() -> None:
    now_a_service = token("a", role="service")
    came_in_as = Principal.of(SecretMatch(token("a"), None))
    may = authorizer_for(view(now_a_service), came_in_as, NOW)
    with pytest.raises(Forbidden, match="`service` may not create"):
        new_token(may, TokenSpec(name="n"))
