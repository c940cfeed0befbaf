"""The four modes, the latch between them, and who gets in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.authenticator import Authenticator
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Mode, Principal
from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens import secret
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Role, SecretMatch
from gateway.tokens.store import StoreState
from tests.support.gateway import StartGateway
from tests.support.tokens import NOW, Clock, content, entry, record
from tests.tokens.test_changes import rotate

KEY = "sk-environment-key-made-up"
ACTIVE, REVOKED, EXPIRED = (f"sk-{word}-secret-made-up-here" for word in ("active", "revoked", "expired"))
LOCAL, REMOTE = None, "it comes from another machine"
"""Why a client is not on this machine."""
TOKENS = (
    record(ACTIVE, name="good", role="service"),
    record(REVOKED, revoked_at="2026-01-01T00:00:00Z"),
    record(EXPIRED, expires_at="2026-01-01T00:00:00Z"),
)


class Tokens:
    def __init__(self, *tokens: object) -> None:
        self.state = StoreState.CURRENT
        self.listeners: list[Callable[[TokenHierarchy], None]] = []
        self.hold(*tokens)

    def subscribe(self, listener: Callable[[TokenHierarchy], None]) -> None:
        self.listeners.append(listener)

    def hold(self, *tokens: object) -> None:
        self.tokens = TokenHierarchy(tokens)  # type: ignore[arg-type]
        for listener in self.listeners:
            listener(self.tokens)


def make(tokens: Tokens, key: str | None = None, allow_open: bool = False) -> Authenticator:
    return Authenticator(key, tokens, Clock(), SharedLatch(), allow_open)


def authenticate(by: Authenticator, credential: Credential | None, refusal: str | None) -> Principal:
    """As the middleware does."""
    return by.authenticate(credential, lambda: refusal)


def admitted(by: Authenticator, text: str | None, refusal: str | None = LOCAL) -> Principal | None:
    try:
        return authenticate(by, None if text is None else Credential(text), refusal)
    except Unauthenticated:
        return None


@pytest.mark.parametrize(
    ("key", "tokens", "mode"),
    [
        (None, (), Mode.OPEN),
        ("", (), Mode.OPEN),
        (KEY, (), Mode.ENVIRONMENT),
        (KEY, TOKENS[1:2], Mode.ENVIRONMENT_AND_FILE),
        (None, TOKENS[1:2], Mode.FILE),
        (None, TOKENS[2:3], Mode.FILE),
    ],
)
def test_the_mode_follows_from_key_and_file(key: str | None, tokens: tuple[object, ...], mode: Mode) -> None:
    assert make(Tokens(*tokens), key).mode is mode


def test_open_mode_admits_this_machine_as_admin_whatever_it_sends() -> None:
    gateway = make(Tokens())
    assert authenticate(gateway, None, LOCAL) is ANONYMOUS
    assert authenticate(gateway, Credential(None), LOCAL) is ANONYMOUS
    assert authenticate(gateway, Credential("anything"), LOCAL).role is Role.ADMIN


def test_open_mode_tells_others_what_to_do() -> None:
    gateway = Authenticator(None, Tokens(), Clock(), SharedLatch())
    with pytest.raises(Forbidden) as caught:
        authenticate(gateway, None, REMOTE)
    assert caught.value.message == (
        "This gateway has no keys yet, so it serves only clients on its own machine. This request is refused because it "
        "comes from another machine. To serve others, create a token (python token_manager.py create NAME), or set "
        "FREEGPT_API_KEY, or set GATEWAY_ALLOW_OPEN=on."
    )
    assert authenticate(make(Tokens(), allow_open=True), None, REMOTE) is ANONYMOUS


def test_open_mode_over_a_damaged_file_serves_nobody() -> None:
    tokens = Tokens()
    gateway = make(tokens, allow_open=True)
    tokens.state = StoreState.DAMAGED
    with pytest.raises(StoreUnavailable) as caught:
        authenticate(gateway, None, LOCAL)
    assert (caught.value.status, caught.value.message) == (503, "The token file cannot be read at the moment.")
    assert "Retry-After" in caught.value.headers


def test_the_environment_key_is_an_admin_and_the_only_one_beside_no_file() -> None:
    gateway = make(Tokens(), KEY)
    assert admitted(gateway, KEY) is ENVIRONMENT_KEY
    assert ENVIRONMENT_KEY.role is Role.ADMIN
    assert admitted(gateway, None) is admitted(gateway, KEY + "x") is admitted(gateway, ACTIVE) is None


@pytest.mark.parametrize("key", [None, KEY])
def test_of_the_file_only_active_tokens_get_in(key: str | None) -> None:
    gateway = make(Tokens(*TOKENS), key)
    match = SecretMatch(TOKENS[0], None)
    assert admitted(gateway, ACTIVE, REMOTE) == Principal.of(match)
    assert [admitted(gateway, text) for text in (REVOKED, EXPIRED, "sk-unknown", "", None)] == [None] * 5
    assert (admitted(gateway, KEY) is ENVIRONMENT_KEY) == (key is not None)


def test_an_environment_key_with_our_form_needs_no_checksum() -> None:
    assert admitted(make(Tokens(), "sk-" + "a" * 49), "sk-" + "a" * 49) is ENVIRONMENT_KEY


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REVOKED, "it is revoked"),
        (EXPIRED, "it is expired"),
        ("sk-unknown-made-up-secret", "it is not known here"),
        ("sk-" + "a" * 49, "its checksum is wrong, so a character is missing or mistyped"),
    ],
)
def test_a_refusal_says_why_and_masks_the_secret(text: str, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(make(Tokens(*TOKENS)), Credential(text), LOCAL)
    assert caught.value.message.startswith(f"Invalid API key provided: {text[:3]}")
    assert caught.value.message.endswith(f" ({reason}).")
    assert text not in caught.value.message
    assert caught.value.code == "invalid_api_key"
    assert caught.value.headers["WWW-Authenticate"] == "Bearer"


def test_no_credential_and_a_malformed_one_are_told_apart() -> None:
    gateway = make(Tokens(*TOKENS))
    with pytest.raises(Unauthenticated) as none:
        authenticate(gateway, None, LOCAL)
    with pytest.raises(Unauthenticated) as malformed:
        authenticate(gateway, Credential(None), LOCAL)
    assert none.value.message == (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    )
    assert malformed.value.message == (
        "Invalid API key provided: *** (it is not printable ASCII of at most 512 characters behind `Bearer`)."
    )
    assert (none.value.code, malformed.value.code) == (None, "invalid_api_key")


def test_a_token_ends_at_its_expiry_while_the_gateway_runs() -> None:
    clock = Clock(NOW - 1)
    tokens = Tokens(record(ACTIVE, expires_at="2027-01-15T08:00:00Z"))
    gateway = Authenticator(None, tokens, clock, SharedLatch())
    assert admitted(gateway, ACTIVE) is not None
    clock.now = NOW
    assert admitted(gateway, ACTIVE) is None


def test_the_first_token_ends_open_mode_for_ever() -> None:
    tokens = Tokens()
    gateway = make(tokens, allow_open=True)
    assert gateway.mode is Mode.OPEN
    tokens.hold(TOKENS[1])
    assert gateway.mode is Mode.FILE
    tokens.hold()
    assert gateway.mode is Mode.FILE
    assert admitted(gateway, None) is admitted(gateway, ACTIVE) is None


def test_a_shared_latch_holds_for_a_worker_that_starts_without_the_file() -> None:
    enforcement = SharedLatch()
    Authenticator(None, Tokens(*TOKENS), Clock(), enforcement)
    late = Authenticator(None, Tokens(), Clock(), enforcement)
    assert late.mode is Mode.FILE
    assert admitted(late, None) is None


@given(st.lists(st.sampled_from(["none", "revoked", "all", "damaged"]), max_size=8))
def test_no_way_leads_back_to_open(steps: list[str]) -> None:
    tokens = Tokens()
    gateway = make(tokens, allow_open=True)
    has_enforced = False
    for step in steps:
        tokens.state = StoreState.DAMAGED if step == "damaged" else StoreState.CURRENT
        if step != "damaged":
            tokens.hold(*{"none": (), "revoked": TOKENS[1:2], "all": TOKENS}[step])
        has_enforced = gateway.mode is not Mode.OPEN or has_enforced
        assert (gateway.mode is Mode.OPEN) == (not has_enforced)
        if has_enforced:
            assert admitted(gateway, None) is admitted(gateway, REVOKED) is admitted(gateway, "sk-unknown") is None


def test_secrets_are_looked_up_by_hash_alone() -> None:
    gateway = make(Tokens(*TOKENS))
    assert admitted(gateway, secret.digest(ACTIVE)) is admitted(gateway, TOKENS[0].id) is None


async def test_a_running_gateway_that_had_a_token_for_a_moment_never_opens_again(
    tmp_path: Path, start_gateway: StartGateway
) -> None:
    """Nobody asked it anything in between."""
    path = tmp_path / "api_tokens.json"
    gateway = await start_gateway()
    assert gateway.app.mode is Mode.OPEN
    for data in (content(entry(REVOKED)), content(), b"{}"):
        path.write_bytes(data)
        await gateway.refresh_tokens()
    assert gateway.app.mode is Mode.FILE


def test_a_principal_is_what_its_token_is_now() -> None:
    """A principal of older tokens would keep rights that were taken from it."""
    tokens = Tokens(record(ACTIVE, role="admin", name="mighty"))
    gateway = make(tokens)
    before = authenticate(gateway, Credential(ACTIVE), LOCAL)
    assert authenticate(gateway, Credential(ACTIVE), LOCAL) is before
    tokens.hold(record(ACTIVE, role="service", name="narrowed", models=["gpt-*"]))
    after = authenticate(gateway, Credential(ACTIVE), LOCAL)
    assert (before.role, before.may_use("o1")) == (Role.ADMIN, True)
    assert (after.name, after.role, after.may_use("o1")) == ("narrowed", Role.SERVICE, False)


def test_a_principal_has_no_more_rights_than_the_parents_of_its_token() -> None:
    parent = record(KEY, id="tok_parent", role="service", models=["gpt-*"])
    child = record(ACTIVE, id="tok_child", parent_id="tok_parent", role="admin")
    principal = authenticate(make(Tokens(parent, child)), Credential(ACTIVE), LOCAL)
    assert (principal.role, principal.may_use("gpt-4o"), principal.may_use("o1")) == (Role.SERVICE, True, False)


def test_a_replaced_secret_ends_with_its_grace_period() -> None:
    """Also for a caller that has been authenticated a moment ago."""
    clock, tokens = Clock(NOW), Tokens(rotate(record(ACTIVE), 60))
    gateway = Authenticator(None, tokens, clock, SharedLatch())
    assert admitted(gateway, ACTIVE) is not None
    clock.now = NOW + 60
    assert admitted(gateway, ACTIVE) is None


def test_the_first_token_sets_the_latch_for_every_worker_even_if_nobody_asks() -> None:
    tokens, enforcement = Tokens(), SharedLatch()
    Authenticator(None, tokens, Clock(), enforcement)
    assert not enforcement.is_set
    tokens.hold(TOKENS[1])
    assert enforcement.is_set


def test_the_environment_key_sets_the_latch() -> None:
    enforcement = SharedLatch()
    Authenticator(KEY, Tokens(), Clock(), enforcement)
    assert enforcement.is_set


def test_the_environment_key_is_told_from_others() -> None:
    assert make(Tokens(), KEY).is_environment_key(KEY)
    assert not make(Tokens(), KEY).is_environment_key(ACTIVE)
    assert not make(Tokens()).is_environment_key(KEY)


def test_the_end_of_open_mode_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    tokens, latch = Tokens(), SharedLatch()
    workers = [Authenticator(None, tokens, Clock(), latch) for _ in range(2)]
    assert [worker.mode for worker in workers] == [Mode.OPEN, Mode.OPEN]
    tokens.hold(*TOKENS)
    tokens.hold(*TOKENS[:1])
    assert [worker.mode for worker in workers] == [Mode.FILE, Mode.FILE]
    assert [record.getMessage() for record in caplog.records] == [
        "there is a token now: from here on every client needs a key"
    ]


def test_a_start_with_tokens_is_no_end_of_open_mode(caplog: pytest.LogCaptureFixture) -> None:
    make(Tokens(*TOKENS))
    make(Tokens(), KEY)
    assert caplog.records == []


def test_a_key_that_is_set_later_is_used_and_ends_open_mode_for_good(caplog: pytest.LogCaptureFixture) -> None:
    gateway = make(Tokens())
    gateway.use(KEY, allow_open=False)
    assert (gateway.mode, gateway.is_environment_key(KEY)) == (Mode.ENVIRONMENT, True)
    gateway.use(None, allow_open=True)
    assert (gateway.mode, gateway.is_environment_key(KEY)) == (Mode.FILE, False)
    assert [record.getMessage() for record in caplog.records] == [
        "there is an environment key now: from here on every client needs a key"
    ]
