"""What each role may do, and what a principal is."""

import pytest

from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Principal
from gateway.auth.roles import Access, authorize
from gateway.core.errors import Forbidden
from gateway.tokens.hierarchy import SecretMatch
from gateway.tokens.models import Role
from tests.support.tokens import record

TAKES = {
    Role.MEMBER: {Access.ADMIN_OR_LOOPBACK: "`admin`"},
    Role.SERVICE: {
        Access.ADMIN_OR_LOOPBACK: "`admin`",
        Access.MANAGE: "`admin`, `member`",
    },
}
"""What a role is told where it may not."""


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("access", [access for access in Access if access is not Access.PUBLIC])
def test_every_role_on_every_access(role: Role, access: Access) -> None:
    if role is Role.ADMIN or access not in TAKES.get(role, {}):
        return authorize(Principal("x", role), access)
    takes = TAKES[role][access]
    with pytest.raises(Forbidden, match=f"role `{role}` may not do this; it takes the role {takes}") as caught:
        authorize(Principal("x", role), access)
    assert (caught.value.status, caught.value.code) == (403, "insufficient_permissions")
    return None


def test_a_public_route_asks_for_no_caller_so_asking_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        authorize(ENVIRONMENT_KEY, Access.PUBLIC)


def test_the_environment_key_and_anybody_have_no_token() -> None:
    for principal in (ENVIRONMENT_KEY, ANONYMOUS):
        assert principal.token_id is None
        assert not principal.is_test
        assert principal.may_use("anything")


def test_a_token_brings_its_own_limits() -> None:
    token = record("sk_test_made-up-test-secret", models=["gpt-*"])
    principal = Principal.of(SecretMatch(token, None))
    assert principal.token_id == record("sk_test_made-up-test-secret").id
    assert principal.is_test
    assert principal.may_use("gpt-4o")
    assert not principal.may_use("o1")
    assert not Principal.of(SecretMatch(record(), None)).is_test
