"""Whatever a member does to its tokens, no more is spent than the budgets allow that it was given at the beginning."""

import asyncio
import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.admin.authorizer import Requester
from gateway.admin.tokens import TokenManagement
from gateway.admin.user_keys import UserKeys
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.errors import Forbidden, GatewayError
from gateway.limits.algorithms import actual_charges
from gateway.limits.config import LimitSet, read_limits
from gateway.limits.matching import CapacityRequest
from gateway.limits.models import Amounts
from gateway.limits.store import Reservation
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.tokens import secret
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import SecretMatch, TokenRecord
from gateway.tokens.stores.memory import MemoryTokenStore
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog, record

ANN = "ann@example.com"
CENT = 10_000
"""In micro-dollars."""
COST = 250
"""Of each request."""
DEAR, CHEAP = MODELS = ("dear-chat", "cheap-chat")
DAY_SECONDS = 86_400
ADMIN = Requester(ENVIRONMENT_KEY, BY)


class Member:
    """A member with two tokens that an admin has made: one for a cent a month; one for five cents a month, of which three are
    for the dear models."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryTokenStore(MemoryAuditLog(), self.clock)
        cent = {"budget": "0.01/month", "models": {"dear*": {"budget": "0.01/month"}}}
        limits = {"budget": "0.05/month", "models": {"dear*": {"budget": "0.03/month"}}}
        self.secrets = ["sk_live_made-up-first-secret", "sk-made-up-second-secret"]
        first = record(self.secrets[0], id="tok_1", owner=ANN, limits=cent)
        second = record(self.secrets[1], id="tok_2", owner=ANN, limits=limits)
        self.store.put([first, second])
        self.cache = TokenCache(self.store)
        self.management = TokenManagement(self.store, self.cache, self.clock)
        self.keys = UserKeys(self.management)
        self.counters = MemoryCounterStore()
        self.spent = dict.fromkeys(MODELS, 0)

    async def principal(self, number: int) -> Principal | None:
        """The caller with one of the secrets that the member has seen; None where it is not valid any more."""
        tokens = await self.management.tokens()
        match = tokens.find_by_digest(secret.digest(self.secrets[number % len(self.secrets)]))
        if match is None or tokens.secret_status(match, self.clock.now) != "active":
            return None
        return Principal.of(match, tokens.parents(match.record) or ())

    async def act(self, number: int, action: str, target: int, limits: LimitSet | None) -> None:
        """Tries an action. What is refused changes nothing."""
        principal = await self.principal(number)
        if action == "wait":
            self.clock.now += DAY_SECONDS
        elif principal is not None and action == "spend":
            await self.spend(principal, MODELS[target % 2])
        elif principal is not None:
            with contextlib.suppress(GatewayError):
                await self.manage(Requester(principal, BY), action, target, limits)

    async def manage(self, requester: Requester, action: str, target: int, limits: LimitSet | None) -> None:
        tokens = (await self.management.tokens()).records
        token_id = tokens[target % len(tokens)].id
        match action:
            case "update":
                await self.management.update(requester, token_id, {"limits": limits})
            case "widen":
                await self.management.update(requester, token_id, {"models": None, "expires_at": None})
            case "rotate":
                self.secrets.append((await self.management.rotate(requester, token_id, target % 2)).secret)
            case "create":
                spec = TokenSpec(name="child", limits=limits) if limits else TokenSpec(name="child")
                self.secrets.append((await self.management.create(requester, spec)).secret)
            case "delete":
                await self.management.delete(requester, token_id)
            case "replace":
                self.secrets.append((await self.keys.replace(requester, ANN, "key")).secret)
            case "end":
                await self.keys.revoke(requester, ANN)

    async def spend(self, principal: Principal, model: str) -> None:
        """Makes requests for a model until one is refused."""
        now = int(self.clock.now) * 1000
        request = CapacityRequest("tok", principal.limits, (model,), Amounts(cost=COST, minimum_cost=COST))
        while isinstance(outcome := await self.counters.reserve(request.charges(now), now), Reservation):
            self.counters.settle(outcome, actual_charges(outcome.charges, 0, COST))
            self.spent[model] += COST


LIMITS = {
    text: read_limits(limits)
    for text, limits in {
        "none": None,
        **{f"a cent{per}": {"budget": f"0.01{per}"} for per in ("", "/day", "/week", "/month")},
        "a little a day": {"budget": "0.0003/day", "models": {"dear*": {"budget": "0.0003/day"}}},
        "of the second": {"budget": "0.05/month", "models": {"dear*": {"budget": "0.03/month"}}},
        "less": {"budget": "0.0095/month", "models": {"dear*": {"budget": "0.0095/month"}}},
        **{
            pattern: {"budget": "0.05/month", "models": {pattern: {"budget": "0.03/month"}}}
            for pattern in ("dear**", "DEAR*", "d*", "*")
        },
    }.items()
}
Action = tuple[int, str, int, str]
"""The number of a secret, what is done with it, the number of a token or model, and limits."""
ACTIONS = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["spend", "spend", "wait", "update", "rotate", "create", "delete", "replace", "end"]),
    st.integers(0, 5),
    st.sampled_from(list(LIMITS)),
)


@settings(max_examples=200)
@given(st.lists(ACTIONS, max_size=12))
@example([(0, "spend", 0, ""), (1, "update", 0, "of the second")])
@example([(0, "spend", 0, ""), (0, "replace", 0, ""), (2, "spend", 0, "")])
@example([(0, "spend", 0, ""), (0, "update", 0, "a little a day"), (0, "wait", 0, "")])
@example([(1, "spend", 0, ""), (1, "update", 1, "d*")])
@example([(1, "spend", 0, ""), (1, "update", 1, "dear**")])
@example([(1, "spend", 0, ""), (1, "create", 0, "of the second"), (1, "delete", 1, "")])
@example([(0, "spend", 1, ""), (0, "create", 0, "a cent"), (2, "replace", 0, "")])
@example([(0, "spend", 0, ""), (0, "create", 0, "a cent"), (2, "replace", 0, "")])
def test_no_sequence_of_calls_spends_more_than_was_given(actions: list[Action]) -> None:
    async def run() -> dict[str, int]:
        member = Member()
        await member.cache.load()
        for number, action, target, limits in actions:
            await member.act(number, action, target, LIMITS.get(limits))
        for number in range(len(member.secrets)):
            for model in range(len(MODELS)):
                await member.act(number, "spend", model, None)
        return member.spent

    spent = asyncio.run(run())
    assert spent[DEAR] <= (1 + 3) * CENT
    assert sum(spent.values()) <= (1 + 5) * CENT


@pytest.fixture
async def member() -> Member:
    member = Member()
    await member.cache.load()
    return member


async def owner(member: Member) -> Requester:
    principal = await member.principal(0)
    assert principal is not None
    return Requester(principal, BY)


async def test_everything_that_was_given_can_be_spent(member: Member) -> None:
    for number, model in ((0, 1), (1, 0), (1, 1)):
        await member.act(number, "spend", model, None)
    assert member.spent == {DEAR: 3 * CENT, CHEAP: (1 + 2) * CENT}


async def test_an_owner_narrows_its_token_and_is_told_what_it_may_not_do(member: Member) -> None:
    requester = await owner(member)
    narrowed = await member.management.update(requester, "tok_1", {"limits": LIMITS["less"]})
    assert narrowed.limits == LIMITS["less"]
    with pytest.raises(
        Forbidden, match="may only narrow its `limits`: every limit stays, for the same models"
    ) as caught:
        await member.management.update(requester, "tok_1", {"limits": LIMITS["a little a day"]})
    assert caught.value.param == "limits"


async def test_an_owner_widens_none_of_its_tokens_to_what_another_may_do(member: Member) -> None:
    principal = await member.principal(1)
    assert principal is not None
    with pytest.raises(Forbidden, match="may only narrow its `limits`"):
        await member.management.update(Requester(principal, BY), "tok_1", {"limits": LIMITS["of the second"]})


async def test_whoever_created_a_token_may_widen_it_again_within_its_own_rights(member: Member) -> None:
    requester = await owner(member)
    child = await member.management.create(requester, TokenSpec(name="child", limits=LIMITS["less"]))
    own = {"limits": requester.principal.chain[0].limits}
    assert (await member.management.update(requester, child.record.id, own)).limits == own["limits"]
    with pytest.raises(Forbidden, match="Nobody can give more than they have"):
        await member.management.update(requester, child.record.id, {"limits": LIMITS["of the second"]})


async def test_an_admin_sets_any_limits(member: Member) -> None:
    for limits in (None, {"budget": "9/week"}, {"rpm": 1}):
        assert (await member.management.update(ADMIN, "tok_1", {"limits": read_limits(limits)})).limits == read_limits(
            limits
        )


async def test_a_replaced_key_stays_the_same_token(member: Member) -> None:
    """Its limits, what was used of them, and its history go on; the old secret and its descendants do not."""
    requester = await owner(member)
    child = await member.management.create(requester, TokenSpec(name="child"))
    replaced = await member.keys.replace(requester, ANN, "second")
    tokens = await member.management.tokens()
    assert (replaced.record.id, replaced.record.name) == ("tok_1", "second")
    assert tokens.find_by_digest(secret.digest(replaced.secret)) == SecretMatch(replaced.record, None)
    old = tokens.find_by_digest(secret.digest(member.secrets[0]))
    assert old is not None
    assert (
        tokens.secret_status(old, NOW)
        == tokens.secret_status(_match(tokens.find_by_id(child.record.id)), NOW)
        == "revoked"
    )


async def test_a_token_below_the_key_does_not_replace_it(member: Member) -> None:
    """A key of its own rights could not be below the one that ends, and would count what was spent anew."""
    requester = await owner(member)
    weak = await member.management.create(requester, TokenSpec(name="weak", limits=LIMITS["less"]))
    weak_requester = Requester(Principal.of(SecretMatch(weak.record, None), requester.principal.chain), BY)
    with pytest.raises(Forbidden, match="would end together with the key"):
        await member.keys.replace(weak_requester, ANN, "mine")
    assert await member.principal(0) is not None


async def test_a_token_beside_the_key_gets_a_key_below_itself(member: Member) -> None:
    narrow = record("sk-made-up-third-secret", id="tok_3", owner=ANN, limits={"budget": "0.001/month"})
    await add(member, narrow)
    requester = Requester(Principal.of(SecretMatch(narrow, None)), BY)
    assert (await member.keys.replace(requester, ANN, "mine")).record.parent_id == "tok_3"
    assert await member.principal(0) is None


async def test_an_older_key_with_fewer_rights_stays_the_same_token(member: Member) -> None:
    newer = record("sk_live_made-up-newer-secret", id="tok_3", owner=ANN)
    await add(member, newer)
    replaced = await member.keys.replace(await owner(member), ANN, "mine")
    assert replaced.record.id == "tok_1"
    tokens = await member.management.tokens()
    assert tokens.secret_status(_match(tokens.find_by_id("tok_3")), NOW) == "revoked"


async def add(member: Member, record: TokenRecord) -> None:
    member.store.put([*(await member.management.tokens()).records, record])
    await member.cache.load()


def _match(found: TokenRecord | None) -> SecretMatch:
    assert found is not None
    return SecretMatch(found, None)
