"""The life of a token: made, found by what people have at hand, revoked, deleted, imported."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.masking import mask
from gateway.tokens import secret
from gateway.tokens.document import TokenFileError
from gateway.tokens.record import Role, Status, TokenRecord
from gateway.tokens.service import AmbiguousToken, NoSuchToken, TokenService, TokenWish, find
from gateway.tokens.token_file import TokenFile
from tests.support.tokens import KEY, LIVE_KEY, NOW, STRANGE_KEY, Clock, content, entry, freegpt, names, record

FIRST, SECOND = KEY, LIVE_KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(path: Path, clock: Clock) -> TokenService:
    return TokenService(TokenFile(path), clock)


@pytest.fixture
def two() -> Sequence[TokenRecord]:
    return record(FIRST, id="tok_one", name="first"), record(SECOND, id="tok_two", name="second")


@pytest.mark.parametrize(
    "reference",
    ["tok_one", "first", FIRST, FIRST[:14], FIRST[:14] + "...", FIRST[:20], FIRST[:51], f"  {FIRST[:14]}...\n"],
)
def test_a_token_is_found_by(two: Sequence[TokenRecord], reference: str) -> None:
    assert find(two, reference).id == "tok_one"


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "...",
        "sk-",
        FIRST[:13],
        FIRST[:13] + "...",
        "tok_on",
        "tok_one2",
        "First",
        "firs",
        "first...",
        STRANGE_KEY,
    ],
)
def test_nothing_is_found_by(two: Sequence[TokenRecord], reference: str) -> None:
    with pytest.raises(NoSuchToken):
        find(two, reference)


def test_a_whole_secret_with_one_wrong_character_is_nobodys(two: Sequence[TokenRecord]) -> None:
    wrong = FIRST[:-1] + ("a" if FIRST[-1] != "a" else "b")
    with pytest.raises(NoSuchToken) as caught:
        find(two, wrong)
    assert wrong not in str(caught.value)
    assert mask(wrong) in str(caught.value)


def test_the_whole_secret_beats_a_name_that_looks_like_it(two: Sequence[TokenRecord]) -> None:
    impostor = record("sk-impostor-with-a-long-secret", name=FIRST[:60])
    assert find((impostor, *two), FIRST).id == "tok_one"


def test_two_tokens_of_one_name_are_ambiguous() -> None:
    same = record(FIRST), record(SECOND)
    with pytest.raises(AmbiguousToken, match="'application' fits 2 tokens") as caught:
        find(same, "application")
    assert caught.value.matches == same


def test_a_name_like_another_tokens_beginning_is_ambiguous() -> None:
    tokens = record(FIRST, name="mine"), record(SECOND, name=FIRST[:14])
    with pytest.raises(AmbiguousToken):
        find(tokens, FIRST[:14])


def test_a_token_that_fits_twice_is_one_match() -> None:
    assert find((record(FIRST, name=FIRST[:14]),), FIRST[:14]).name == FIRST[:14]


def test_two_foreign_secrets_with_one_beginning_are_ambiguous() -> None:
    tokens = record("company-key-000001-and-so-on"), record("company-key-000002-and-so-on")
    with pytest.raises(AmbiguousToken):
        find(tokens, "company-key-00")


@pytest.mark.parametrize(("reference", "fits"), [("abc", True), ("abc...", True), ("abcd", False), ("abcdefg", False)])
def test_a_short_foreign_secret_is_found_by_its_very_prefix_alone(reference: str, fits: bool) -> None:
    """Its prefix is so short that many texts begin with it."""
    tokens = (record("abcdef", name="short"),)
    if fits:
        assert find(tokens, reference).name == "short"
    else:
        with pytest.raises(NoSuchToken):
            find(tokens, reference)


def test_a_short_foreign_secret_is_found_by_itself() -> None:
    assert find((record("abcdef", name="short"),), "abcdef").name == "short"


@pytest.mark.parametrize("name", [" padded ", "trailing "])
def test_every_name_that_a_token_may_have_finds_it(name: str) -> None:
    assert find((record(FIRST, name=name),), name).name == name


@given(st.text())
def test_any_text_finds_a_token_or_says_no(reference: str) -> None:
    tokens = record(FIRST, name="first"), record(SECOND, name="second")
    try:
        found = find(tokens, reference)
    except (NoSuchToken, AmbiguousToken):
        return
    assert found in tokens


def test_what_a_shell_passes_for_bytes_that_are_not_utf_8_is_no_token(two: Sequence[TokenRecord]) -> None:
    with pytest.raises(NoSuchToken):
        find(two, b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_a_new_token_is_in_the_file_and_its_secret_is_not(service: TokenService, path: Path) -> None:
    wish = TokenWish(
        name="ci",
        owner="ann@example.com",
        role=Role.SERVICE,
        expires_at=NOW + 60,
        models=("a",),
        secret_prefix="sk_test_",
    )
    made = service.create(wish)
    assert made.secret.startswith("sk_test_")
    assert made.record.hash == secret.digest(made.secret)
    assert made.record.created_at == NOW
    assert made.record.id.startswith("tok_")
    assert made.secret.encode() not in path.read_bytes()
    assert service.all() == (made.record,)
    assert TokenService(TokenFile(path), Clock()).find(made.secret) == made.record


def test_without_a_file_there_are_no_tokens(service: TokenService, path: Path) -> None:
    assert service.all() == ()
    for change in (service.revoke, service.delete):
        with pytest.raises(NoSuchToken):
            change("anything")
    assert not path.exists()


def test_revoking_again_keeps_the_first_time(service: TokenService, clock: Clock, path: Path) -> None:
    made = service.create(TokenWish(name="ci"))
    assert service.revoke("ci").revoked_at == NOW
    clock.now += 100
    before = path.read_bytes()
    assert service.revoke(made.secret).revoked_at == NOW
    assert path.read_bytes() == before
    assert service.find("ci").status(NOW) is Status.REVOKED


def test_a_change_touches_one_token_and_keeps_the_order(service: TokenService, path: Path) -> None:
    path.write_bytes(content(*[entry(f"sk-made-up-number-{n:04}", name=str(n)) for n in range(3)], mine="kept"))
    service.revoke("1")
    assert [token.revoked_at for token in service.all()] == [None, NOW, None]
    service.delete("0")
    assert names(path) == ["1", "2"]
    assert json.loads(path.read_bytes())["mine"] == "kept"


def test_an_ambiguous_reference_changes_nothing(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry(FIRST), entry(SECOND)))
    for change in (service.revoke, service.delete):
        with pytest.raises(AmbiguousToken):
            change("application")
    assert path.read_bytes() == content(entry(FIRST), entry(SECOND))


def test_an_import_adds_what_is_not_here_yet(service: TokenService, path: Path) -> None:
    here = service.create(TokenWish(name="here"))
    offered = json.dumps({**freegpt("sk-old-secret-one-made-up"), **freegpt(here.secret, name="the same")}).encode()
    assert [token.name for token in service.import_file(offered)] == ["old"]
    assert names(path) == ["here", "old"]
    before = path.stat().st_ino
    assert service.import_file(offered) == ()
    assert path.stat().st_ino == before
    assert service.find("sk-old-secret-one-made-up").name == "old"


def test_an_import_does_not_revive_a_revoked_token(service: TokenService) -> None:
    made = service.create(TokenWish(name="here"))
    service.revoke("here")
    assert service.import_file(json.dumps(freegpt(made.secret)).encode()) == ()
    assert service.find("here").status(NOW) is Status.REVOKED


def test_an_import_of_a_foreign_token_under_an_id_of_ours_is_passed_over(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry(FIRST, id="tok_same")))
    assert service.import_file(content(entry(SECOND, id="tok_same"))) == ()


def test_a_damaged_import_changes_nothing(service: TokenService, path: Path) -> None:
    path.write_bytes(content(entry()))
    with pytest.raises(TokenFileError):
        service.import_file(b"{")
    assert path.read_bytes() == content(entry())
