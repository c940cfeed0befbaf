"""What follows from a token and its parents for a caller."""

from gateway.auth.principal import ANONYMOUS, Principal
from gateway.tokens.models import Role, SecretMatch
from tests.support.tokens import KEY, record
from tests.tokens.test_changes import rotate
from tests.tokens.test_hierarchy import token


def test_the_parents_count() -> None:
    parent = token("p", role="service", models=["a*"], limits={"budget": "1/day"})
    child = token("c", "p", role="admin", models=["*1"], limits={"rpm": 5})
    principal = Principal.of(SecretMatch(child, None), (parent,))
    assert (principal.name, principal.role, principal.token_id) == ("c", Role.SERVICE, child.id)
    assert principal.names == {child.id: "c", parent.id: "p"}
    assert [model for model in ("a1", "a2", "b1") if principal.may_use(model)] == ["a1"]
    assert [token_id for token_id, _ in principal.limits.sets] == [child.id, parent.id]


def test_only_limits_that_depend_on_the_model_need_it() -> None:
    plain, metered = token("a", limits={"rpm": 5}), token("b", limits={"budget": "1/day"})
    assert not Principal.of(SecretMatch(plain, None)).depends_on_model
    assert Principal.of(SecretMatch(metered, None)).depends_on_model
    assert Principal.of(SecretMatch(plain, None), (metered,)).depends_on_model
    assert Principal.of(SecretMatch(token("c", models=[]), None)).depends_on_model


def test_the_secret_is_the_one_that_was_sent() -> None:
    before = record(KEY)
    current = rotate(before, 60)
    assert Principal.of(SecretMatch(current, None)).secret_hash == current.hash
    assert Principal.of(SecretMatch(current, current.previous_secrets[0])).secret_hash == before.hash
    assert ANONYMOUS.secret_hash == ""
    assert ANONYMOUS.names == {}
