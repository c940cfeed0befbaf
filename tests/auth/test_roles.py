"""What each role may do, by what a route requires."""

import pytest

from gateway.auth.roles import ALLOWED_ROLES, Access, refusal
from gateway.tokens.models import Role

REFUSED = {
    (Role.MEMBER, Access.ADMIN_OR_LOOPBACK): "`admin`",
    (Role.SERVICE, Access.ADMIN_OR_LOOPBACK): "`admin`",
    (Role.SERVICE, Access.MANAGE): "`admin`, `member`",
}
"""Which roles a refused role is told that it would take. Every other role is allowed."""


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("access", [access for access in Access if access is not Access.PUBLIC])
def test_every_role_on_every_access(role: Role, access: Access) -> None:
    assert (role in ALLOWED_ROLES[access]) is ((role, access) not in REFUSED)


@pytest.mark.parametrize(("role", "access"), REFUSED)
def test_a_refusal_names_the_roles_that_it_takes(role: Role, access: Access) -> None:
    error = refusal(role, access)
    assert (error.status, error.code) == (403, "insufficient_permissions")
    takes = REFUSED[role, access]
    assert error.message == f"A token with the role `{role}` may not do this; it takes the role {takes}."


def test_a_public_route_asks_for_no_role_so_asking_is_a_mistake() -> None:
    assert Access.PUBLIC not in ALLOWED_ROLES
