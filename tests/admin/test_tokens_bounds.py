"""How many tokens a token may make, and how often it may change some."""

from collections.abc import Callable

import pytest

from gateway.admin.authorizer import Requester
from gateway.admin.tokens import ChangeRules, TokenManagement
from gateway.admin.user_keys import UserKeys
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.errors import Conflict, RateLimited
from gateway.http.ip_rate_limit import KeyedRateLimit
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import SecretMatch, TokenRecord
from gateway.tokens.stores.memory import MemoryTokenStore
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog
from tests.tokens.test_hierarchy import token

ANN = "ann@example.com"
MEMBER = token("member", role="member", owner=ANN)
ADMIN = Requester(ENVIRONMENT_KEY, BY)
Manage = Callable[..., TokenManagement]


def by(record: TokenRecord, *parents: TokenRecord) -> Requester:
    return Requester(Principal.of(SecretMatch(record, None), parents), BY)


@pytest.fixture
async def manage() -> Manage:
    store = MemoryTokenStore(MemoryAuditLog(), Clock())
    store.put([MEMBER])
    cache = TokenCache(store)
    await cache.load()

    def managed(max_children: int = 1000, per_minute: int = 60, clock: Clock | None = None) -> TokenManagement:
        limit = KeyedRateLimit(clock or Clock(NOW))
        return TokenManagement(store, cache, Clock(), ChangeRules(max_children, per_minute, limit.wait))

    return managed


async def test_a_token_has_only_so_many_descendants_however_they_are_nested(manage: Manage) -> None:
    management = manage(max_children=3)
    child = (await management.create(by(MEMBER), TokenSpec(name="child"))).record
    await management.create(by(MEMBER), TokenSpec(name="second"))
    await management.create(by(child, MEMBER), TokenSpec(name="grandchild"))
    for requester in (by(MEMBER), by(child, MEMBER)):
        with pytest.raises(Conflict, match=f"3 tokens below `{MEMBER.name}` already") as caught:
            await management.create(requester, TokenSpec(name="one more"))
        assert (caught.value.status, caught.value.code) == (409, "too_many_children")
    await management.create(ADMIN, TokenSpec(name="by an admin", parent_id=MEMBER.id))
    children = (await management.tokens()).records[1:]
    for record in children:
        await management.revoke(by(MEMBER), record.id)
    with pytest.raises(Conflict):
        await management.create(by(MEMBER), TokenSpec(name="revoked ones take space, too"))
    for record in reversed(children):
        await management.delete(by(MEMBER), record.id)
    await management.create(by(MEMBER), TokenSpec(name="again"))


async def test_records_below_a_deleted_token_do_not_pile_up(manage: Manage) -> None:
    management = manage(max_children=2)
    for _ in range(3):
        child = (await management.create(by(MEMBER), TokenSpec(name="child"))).record
        await management.create(by(child, MEMBER), TokenSpec(name="grandchild"))
        await management.delete(by(MEMBER), child.id)
        assert (await management.tokens()).records == (MEMBER,)


async def test_an_admin_keeps_the_records_below_a_deleted_token(manage: Manage) -> None:
    management = manage()
    child = (await management.create(by(MEMBER), TokenSpec(name="child"))).record
    await management.delete(ADMIN, MEMBER.id)
    assert [(one.id, one.revoked_at) for one in (await management.tokens()).records] == [(child.id, NOW)]


async def test_user_keys_count_as_descendants(manage: Manage) -> None:
    """A user's key that its owner ends and makes again is a new record each time."""
    keys = UserKeys(manage(max_children=2))
    for name in ("first", "second"):
        await keys.replace(by(MEMBER), ANN, name)
        await keys.revoke(by(MEMBER), ANN)
    with pytest.raises(Conflict, match="2 tokens below"):
        await keys.replace(by(MEMBER), ANN, "third")
    await keys.replace(ADMIN, ANN, "by an admin")


async def test_what_was_made_can_be_ended_while_changes_are_refused(manage: Manage) -> None:
    management = manage(per_minute=2)
    keys = UserKeys(management)
    await keys.replace(by(MEMBER), ANN, "key")
    child = (await management.create(by(MEMBER), TokenSpec(name="child"))).record
    with pytest.raises(RateLimited):
        await management.create(by(MEMBER), TokenSpec(name="one more"))
    for _ in range(2):
        await management.delete(by(MEMBER), child.id)
        child = (await management.create(ADMIN, TokenSpec(name="child", parent_id=MEMBER.id))).record
    with pytest.raises(RateLimited, match="2 deletions of tokens a minute"):
        await management.delete(by(MEMBER), child.id)
    await keys.revoke(by(MEMBER), ANN)
    await management.revoke(by(MEMBER), child.id)
    with pytest.raises(RateLimited, match="2 revocations of tokens a minute"):
        await management.revoke(by(MEMBER), MEMBER.id)


async def test_a_token_and_its_children_together_make_only_so_many_changes_a_minute(manage: Manage) -> None:
    clock = Clock(NOW)
    management = manage(per_minute=3, clock=clock)
    child = (await management.create(by(MEMBER), TokenSpec(name="child"))).record
    await management.create(by(child, MEMBER), TokenSpec(name="grandchild"))
    await management.rotate(by(MEMBER), child.id, 60)
    before = (await management.tokens()).records
    for requester in (by(MEMBER), by(child, MEMBER)):
        with pytest.raises(RateLimited, match="3 changes of tokens a minute") as caught:
            await management.create(requester, TokenSpec(name="one more"))
        assert caught.value.headers["Retry-After"] == "20"
    assert (await management.tokens()).records == before
    await management.revoke(by(MEMBER), child.id)
    clock.now += 20
    await management.create(by(MEMBER), TokenSpec(name="later"))


async def test_an_admin_makes_as_many_changes_as_it_likes(manage: Manage) -> None:
    management = manage(per_minute=1)
    for number in range(20):
        await management.create(ADMIN, TokenSpec(name=str(number)))
    assert len((await management.tokens()).records) == 21
