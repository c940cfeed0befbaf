"""Changes of somebody who may do everything: each one transaction."""

import pytest

from gateway.tokens import operations, secret
from gateway.tokens.changes import ChangeRefused, TokenSpec
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.models import Status
from gateway.tokens.stores.memory import MemoryTokenStore
from tests.support.tokens import BY, KEY, LIVE_KEY, NOW, Clock, MemoryAuditLog, record


@pytest.fixture
def audit() -> MemoryAuditLog:
    return MemoryAuditLog()


@pytest.fixture
def store(audit: MemoryAuditLog) -> MemoryTokenStore:
    return MemoryTokenStore(audit, Clock())


async def test_a_created_token_is_stored_without_its_secret(store: MemoryTokenStore) -> None:
    created = await operations.create(store, BY, TokenSpec(name="ci"))
    assert created.record.hash == secret.digest(created.secret)
    assert (await operations.read_or_empty(store)).records == (created.record,)


async def test_the_audit_log_names_who_made_each_change(store: MemoryTokenStore, audit: MemoryAuditLog) -> None:
    await operations.create(store, BY, TokenSpec(name="ci"))
    await operations.rotate(store, BY, "ci", 0)
    await operations.revoke(store, BY, "ci")
    await operations.delete(store, BY, "ci")
    await operations.import_records(store, BY, [record()])
    assert [(event.action, event.actor) for event in audit.events] == [
        ("token.create", BY), ("token.rotate", BY), ("token.revoke", BY), ("token.delete", BY), ("token.import", BY)
    ]  # fmt: skip


async def test_a_child_inherits_from_its_parent(store: MemoryTokenStore) -> None:
    store.put([record(id="tok_p", owner="ann@example.com", models=["a*"], expires_at="2027-01-15T08:00:01Z")])
    child = (await operations.create(store, BY, TokenSpec(name="child", parent_id="tok_p"))).record
    assert (child.owner, child.models, child.expires_at) == ("ann@example.com", ("a*",), NOW + 1)
    with pytest.raises(ChangeRefused):
        await operations.create(store, BY, TokenSpec(name="child", parent_id="tok_p", models=("b",)))


async def test_a_rotated_token_is_given_as_it_is_stored(store: MemoryTokenStore) -> None:
    await operations.create(store, BY, TokenSpec(name="ci"))
    rotated = await operations.rotate(store, BY, "ci", 60)
    assert (await store.read()).records == (rotated.record,)
    assert rotated.record.hash == secret.digest(rotated.secret)


async def test_without_a_store_there_are_no_tokens(store: MemoryTokenStore) -> None:
    assert len(await operations.read_or_empty(store)) == 0
    for change in (operations.revoke, operations.delete):
        with pytest.raises(NoSuchToken):
            await change(store, BY, "anything")
    store.put([record()])
    store.remove()
    assert len(await operations.read_or_empty(store)) == 0


async def test_revoking_again_keeps_the_first_time(store: MemoryTokenStore) -> None:
    await operations.create(store, BY, TokenSpec(name="ci"))
    assert (await operations.revoke(store, BY, "ci")).record.revoked_at == NOW
    again = await operations.revoke(store, BY, "ci")
    assert (again.action, again.record.revoked_at) == ("", NOW)


async def test_a_replaced_secret_can_be_ended_alone(store: MemoryTokenStore) -> None:
    created = await operations.create(store, BY, TokenSpec(name="ci"))
    rotated = await operations.rotate(store, BY, "ci", 60)
    change = await operations.revoke(store, BY, created.secret)
    assert (change.action, change.record.revoked_at) == ("token.end_secret", None)
    assert (await operations.revoke(store, BY, rotated.secret)).record.revoked_at == NOW


async def test_a_deleted_token_is_gone(store: MemoryTokenStore) -> None:
    created = await operations.create(store, BY, TokenSpec(name="ci"))
    await operations.delete(store, BY, created.record.id)
    assert (await store.read()).records == ()


async def test_an_ambiguous_reference_changes_nothing(store: MemoryTokenStore) -> None:
    store.put([record(KEY), record(LIVE_KEY)])
    with pytest.raises(AmbiguousToken):
        await operations.revoke(store, BY, "application")
    assert [found.revoked_at for found in (await store.read()).records] == [None, None]


async def test_an_import_adds_what_is_new_and_revives_nothing(store: MemoryTokenStore) -> None:
    created = await operations.create(store, BY, TokenSpec(name="here"))
    await operations.revoke(store, BY, "here")
    offered = [record(created.secret, name="again"), record(name="new")]
    assert [added.name for added in await operations.import_records(store, BY, offered)] == ["new"]
    assert [found.status(NOW) for found in (await store.read()).records] == [Status.REVOKED, Status.ACTIVE]
