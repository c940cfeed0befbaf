"""A user's one key: created, replaced, ended, and by whom."""

import pytest

from gateway.admin.authorizer import Requester
from gateway.admin.tokens import TokenManagement
from gateway.admin.user_keys import UserKeys
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.errors import Forbidden, NotFound
from gateway.tokens.cache import TokenCache
from gateway.tokens.models import SecretMatch
from gateway.tokens.stores.memory import MemoryTokenStore
from tests.support.tokens import BY, Clock, MemoryAuditLog
from tests.tokens.test_hierarchy import token

ANN, BOB = "ann@example.com", "bob@example.com"
ADMIN = Requester(ENVIRONMENT_KEY, BY)
OWN = token("ann", owner=ANN)
MEMBER = Requester(Principal.of(SecretMatch(OWN, None)), BY)


@pytest.fixture
async def keys() -> UserKeys:
    store = MemoryTokenStore(MemoryAuditLog(), Clock())
    store.put([OWN])
    cache = TokenCache(store)
    await cache.load()
    return UserKeys(TokenManagement(store, cache, Clock()))


@pytest.mark.parametrize("requester", [ADMIN, MEMBER])
async def test_a_key_is_created_replaced_and_ended(keys: UserKeys, requester: Requester) -> None:
    assert await keys.current(requester.principal, ANN) is None
    first = await keys.replace(requester, ANN, "one")
    second = await keys.replace(requester, ANN, "two")
    assert first.secret.startswith("sk_live_")
    assert await keys.current(requester.principal, ANN) == second.record
    await keys.revoke(requester, ANN)
    assert await keys.current(requester.principal, ANN) is None
    with pytest.raises(NotFound):
        await keys.revoke(requester, ANN)


async def test_somebody_elses_key_is_not_there(keys: UserKeys) -> None:
    await keys.replace(ADMIN, BOB, "his")
    with pytest.raises(NotFound):
        await keys.current(MEMBER.principal, BOB)
    with pytest.raises(NotFound):
        await keys.revoke(MEMBER, BOB)
    with pytest.raises(Forbidden):
        await keys.replace(MEMBER, BOB, "mine")
    assert await keys.current(ENVIRONMENT_KEY, BOB) is not None


async def test_a_members_key_is_below_its_token(keys: UserKeys) -> None:
    assert (await keys.replace(MEMBER, ANN, "one")).record.parent_id == OWN.id
    assert (await keys.replace(ADMIN, BOB, "two")).record.parent_id is None
