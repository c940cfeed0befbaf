"""What only shows when something changes between authentication and the transaction, and what management does."""

import pytest

from gateway.admin.authorizer import Requester, authorizer_for
from gateway.admin.tokens import TokenManagement, new_token
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.errors import BadRequest, Conflict, Forbidden, StoreUnavailable
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import SecretMatch
from gateway.tokens.store import StoreState
from gateway.tokens.stores.memory import MemoryTokenStore
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog
from tests.tokens.test_hierarchy import token, view


def test_whoever_has_just_become_a_service_creates_nothing() -> None:
    now_a_service = token("a", role="service")
    came_in_as = Principal.of(SecretMatch(token("a"), None))
    may = authorizer_for(view(now_a_service), came_in_as, NOW)
    with pytest.raises(Forbidden, match="`service` may not create"):
        new_token(may, TokenSpec(name="n"))


OTHER = token("other", models=["x"])


class Managed:
    """A store with one token, and its management."""

    def __init__(self) -> None:
        self.store = MemoryTokenStore(MemoryAuditLog(), Clock())
        self.store.put([OTHER])
        self.cache = TokenCache(self.store)
        self.management = TokenManagement(self.store, self.cache, Clock())


@pytest.fixture
async def managed() -> Managed:
    made = Managed()
    await made.cache.load()
    return made


ADMIN = Requester(ENVIRONMENT_KEY, BY)


async def test_a_token_lives_from_its_creation_to_its_end(managed: Managed) -> None:
    manage = managed.management
    created = await manage.create(ADMIN, TokenSpec(name="ci"))
    assert (await manage.update(ADMIN, created.record.id, {"name": "new"})).name == "new"
    rotated = await manage.rotate(ADMIN, created.record.id, 60)
    assert rotated.secret != created.secret
    assert (await manage.revoke(ADMIN, created.record.id)).revoked_at == manage.now() == NOW
    await manage.delete(ADMIN, created.record.id)
    assert (await manage.tokens()).records == (OTHER,)


async def test_a_refused_change_says_what_is_wrong(managed: Managed) -> None:
    await managed.management.revoke(ADMIN, OTHER.id)
    with pytest.raises(Conflict):
        await managed.management.rotate(ADMIN, OTHER.id, 60)
    with pytest.raises(BadRequest) as caught:
        await managed.management.create(ADMIN, TokenSpec(name="n", parent_id="tok_nowhere"))
    assert caught.value.param == "parent_id"


async def test_whoever_has_a_secret_can_revoke_it(managed: Managed) -> None:
    created = await managed.management.create(ADMIN, TokenSpec(name="ci"))
    await managed.management.revoke_secret(BY, "sk-nobodys-made-up-secret")
    await managed.management.revoke_secret(BY, created.secret)
    assert [found.revoked_at for found in (await managed.management.tokens()).records] == [None, NOW]


async def test_a_store_that_is_away_is_not_begun_anew(managed: Managed) -> None:
    managed.store.remove()
    with pytest.raises(StoreUnavailable, match="could not be written"):
        await managed.management.create(ADMIN, TokenSpec(name="ci"))
    managed.cache.state = StoreState.GONE
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await managed.management.revoke_secret(BY, "sk-anything")


async def test_a_member_creates_below_itself_alone(managed: Managed) -> None:
    own = Requester(Principal.of(SecretMatch(OTHER, None)), BY)
    child = await managed.management.create(own, TokenSpec(name="child"))
    assert child.record.parent_id == OTHER.id
    below = await managed.management.create(own, TokenSpec(name="below", parent_id=child.record.id, owner=None))
    assert below.record.parent_id == child.record.id
    with pytest.raises(BadRequest):
        await managed.management.create(own, TokenSpec(name="n", parent_id="tok_nowhere"))
