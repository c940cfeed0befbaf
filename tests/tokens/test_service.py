"""The life of a token: made, rotated, revoked, deleted, imported, and each change written down."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from gateway.tokens.service import TokenService

from gateway.audit.hash_chain import AuditEvent
from gateway.storage import files
from gateway.tokens import changes, secret
from gateway.tokens.changes import TokenSpec
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.models import Role, Status
from gateway.tokens.stores.json_format import TokensDamaged
from tests.support.tokens import (
    BY,
    KEY,
    LIVE_KEY,
    NOW,
    Clock,
    MemoryLog,
    content,
    entry,
    freegpt,
    names,
    record,
    service_at,
)

FIRST, SECOND = KEY, LIVE_KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(path: Path, clock: Clock) -> TokenService:
    return service_at(path, clock)


def test_a_new_token_is_in_the_file_and_its_secret_is_not(service: TokenService, path: Path) -> None:
    spec = TokenSpec(
        name="ci",
        owner="ann@example.com",
        role=Role.SERVICE,
        expires_at=NOW + 60,
        models=("a",),
        prefix="sk_test_",
    )
    made = service.create(BY, spec)
    assert made.secret.startswith("sk_test_")
    assert made.record.hash == secret.digest(made.secret)
    assert made.record.created_at == NOW
    assert made.record.id.startswith("tok_")
    assert made.secret.encode() not in path.read_bytes()
    assert service.view().records == (made.record,)
    assert service_at(path, Clock()).find(made.secret) == made.record


def test_without_a_file_there_are_no_tokens(service: TokenService, path: Path) -> None:
    assert len(service.view()) == 0
    for change in (service.revoke, service.delete):
        with pytest.raises(NoSuchToken):
            change(BY, "anything")
    assert not path.exists()


def test_revoking_again_keeps_the_first_time(service: TokenService, clock: Clock, path: Path) -> None:
    made = service.create(BY, TokenSpec(name="ci"))
    assert service.revoke(BY, "ci").record.revoked_at == NOW
    clock.now += 100
    before = path.read_bytes()
    assert service.revoke(BY, made.secret).record.revoked_at == NOW
    assert path.read_bytes() == before
    assert service.find("ci").status(NOW) is Status.REVOKED


def test_a_change_touches_one_token_and_keeps_the_order(service: TokenService, path: Path) -> None:
    path.write_bytes(content(*[entry(f"sk-made-up-number-{n:04}", name=str(n)) for n in range(3)], mine="kept"))
    service.revoke(BY, "1")
    assert [token.revoked_at for token in service.view().records] == [None, NOW, None]
    service.delete(BY, "0")
    assert names(path) == ["1", "2"]
    assert json.loads(path.read_bytes())["mine"] == "kept"


def test_an_ambiguous_reference_changes_nothing(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry(FIRST), entry(SECOND)))
    for change in (service.revoke, service.delete):
        with pytest.raises(AmbiguousToken):
            change(BY, "application")
    assert path.read_bytes() == content(entry(FIRST), entry(SECOND))


def test_an_import_adds_what_is_not_here_yet(service: TokenService, path: Path) -> None:
    here = service.create(BY, TokenSpec(name="here"))
    offered = json.dumps({**freegpt("sk-old-secret-one-made-up"), **freegpt(here.secret, name="the same")}).encode()
    assert [token.name for token in service.import_file(BY, offered)] == ["old"]
    assert names(path) == ["here", "old"]
    before = path.stat().st_ino
    assert service.import_file(BY, offered) == ()
    assert path.stat().st_ino == before
    assert service.find("sk-old-secret-one-made-up").name == "old"


def test_an_import_does_not_revive_a_revoked_token(service: TokenService) -> None:
    made = service.create(BY, TokenSpec(name="here"))
    service.revoke(BY, "here")
    assert service.import_file(BY, json.dumps(freegpt(made.secret)).encode()) == ()
    assert service.find("here").status(NOW) is Status.REVOKED


def test_an_import_of_a_foreign_token_under_an_id_of_ours_is_passed_over(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry(FIRST, id="tok_same")))
    assert service.import_file(BY, content(entry(SECOND, id="tok_same"))) == ()


def test_a_damaged_import_changes_nothing(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry()))
    with pytest.raises(TokensDamaged):
        service.import_file(BY, b"{")
    assert path.read_bytes() == content(entry())


def logged(log: MemoryLog) -> list[tuple[str, str]]:
    return [(entry.action, entry.token) for entry in log.entries]


def test_every_change_is_logged_with_what_was_before_and_after(path: Path, clock: Clock) -> None:
    log = MemoryLog()
    service = service_at(path, clock, log)
    made = service.create(BY, TokenSpec(name="ci", owner="ann@example.com"))
    service.create(BY, TokenSpec(name="child", parent_id=made.record.id))
    service.rotate(BY, "ci", 60)
    service.revoke(BY, "ci")
    service.delete(BY, "child")
    assert logged(log) == [
        ("token.create", "ci"),
        ("token.create", "child"),
        ("token.rotate", "ci"),
        ("token.revoke", "ci"),
        ("token.revoke", "child"),
        ("token.delete", "child"),
    ]
    assert log.entries[0].changes["owner"] == (None, "ann@example.com")
    assert "usage_count" not in log.entries[0].changes
    assert log.entries[3].changes == {"revoked_at": (None, "2027-01-15T08:00:00Z")}
    assert {entry.actor for entry in log.entries} == {BY}
    text = str(log.entries)
    assert made.secret not in text
    assert made.record.hash not in text


def test_what_changes_nothing_is_not_logged(path: Path, clock: Clock) -> None:
    log = MemoryLog()
    service = service_at(path, clock, log)
    service.create(BY, TokenSpec(name="ci"))
    service.revoke(BY, "ci")
    count = len(log.entries)
    assert service.revoke(BY, "ci").record.revoked_at == NOW
    assert len(log.entries) == count


def test_what_cannot_be_logged_is_not_done(path: Path, clock: Clock) -> None:
    class FullLog(MemoryLog):
        def append(self, entries: Sequence[AuditEvent]) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        service_at(path, clock, FullLog()).create(BY, TokenSpec(name="ci"))
    assert not path.exists()


def test_what_was_logged_and_could_not_be_done_is_logged_as_failed(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()

    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        service_at(path, clock, log).create(BY, TokenSpec(name="ci"))
    assert logged(log) == [("token.create", "ci"), ("token.create.failed", "ci")]


def test_a_replaced_secret_can_be_ended_alone(service: TokenService) -> None:
    made = service.create(BY, TokenSpec(name="ci"))
    new = service.rotate(BY, "ci", 60)
    touch = service.revoke(BY, made.secret)
    assert (touch.action, touch.record.revoked_at) == ("token.end_secret", None)
    assert service.revoke(BY, made.secret).action == ""
    assert service.revoke(BY, new.secret).record.revoked_at == NOW


def test_a_file_that_is_away_is_not_begun_anew_where_that_is_not_wanted(service: TokenService, path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        service.change(BY, lambda view, now: changes.create(view, record(FIRST), now), create=False)
    assert not path.exists()
