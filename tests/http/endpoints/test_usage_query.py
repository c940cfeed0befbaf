"""What ``GET /api/usage`` makes of a query, for whom, and how it shows what it found."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.admin.authorizer import Authorizer, authorizer_for
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.bounded_threads import BoundedThreads
from gateway.core.clock import LATEST, to_iso
from gateway.core.errors import BadRequest, NotFound, StoreUnavailable
from gateway.http import params
from gateway.http.endpoints import usage as endpoint
from gateway.http.endpoints.usage import READERS, UsageEndpoints, query_of, to_json
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import SecretMatch
from gateway.usage.models import ReportQuery, ReportRow, UsageTotals
from gateway.usage.reports import UsageReports
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore
from tests.support.tokens import NOW
from tests.support.usage import ledger_entry
from tests.tokens.test_hierarchy import token, view

DAY = 1_799_971_200
"""The first second of the day that NOW is in."""


@pytest.fixture
def file(tmp_path: Path) -> SqliteUsageStore:
    return SqliteUsageStore(tmp_path / LEDGER_FILE)


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


class Asking:
    """A call with a query, by somebody."""

    def __init__(self, query: str, principal: Principal = ENVIRONMENT_KEY) -> None:
        self.query = query
        self.caller = principal
        self.bytes_sent = 0

    def headers(self) -> dict[str, str]:
        return {}


class Management:
    """Knows these tokens."""

    def __init__(self, tokens: TokenHierarchy) -> None:
        self._tokens = tokens

    async def authorizer(self, principal: Principal) -> Authorizer:
        return authorizer_for(self._tokens, principal, NOW)


ADMIN, ANN, BOB, ROBOT = (
    token("admin", role="admin"),
    token("ann", owner="ann@example.com"),
    token("bob", owner="bob@example.com"),
    token("robot", owner="ann@example.com", role="service"),
)
CHILD = token("child", "bob")
TOKENS = view(ADMIN, ANN, BOB, ROBOT, CHILD)


def principal(record: Any) -> Principal:
    return Principal.of(SecretMatch(record, None))


def query(text: str, who: Principal = ENVIRONMENT_KEY) -> ReportQuery:
    read = params.parse_query(Asking(text, who), READERS)  # type: ignore[arg-type]
    return query_of(read, authorizer_for(TOKENS, who, NOW))


def test_the_last_seven_days_by_the_day() -> None:
    """With the hour that has just begun."""
    assert NOW % 3600 == 0
    assert query("") == ReportQuery(NOW - 7 * 86_400, NOW + 3600, "day", None, None)
    asked = query("from=2026-12-01&to=2026-12-02T10:30:00%2B02:00&bucket=hour&group_by=model&token_id=tok_gone")
    assert asked == ReportQuery(
        1_796_083_200, 1_796_083_200 + 86_400 + 9 * 3600, "hour", "model", frozenset({"tok_gone"})
    )
    assert query("to=2026-12-07")[:2] == (1_796_083_200, 1_796_083_200 + 7 * 86_400), "the seven days up to it, with it"
    assert query("to=9999-12-31T23:59:59&from=9999-12-31").until == LATEST


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("from=2026-12-01&to=2026-12-01", 1_796_083_200, 1_796_083_200 + 86_400),
        ("from=2026-12-01T00:00:00Z&to=2026-12-01", 1_796_083_200, 1_796_083_200 + 86_400),
        ("from=2026-12-01T02:00:00+02:00", 1_796_083_200, NOW + 3600),
        ("from=2026-12-01T02:00:00+0200", 1_796_083_200, NOW + 3600),
        ("from=2026-12-01T00:00:00.000+00:00&to=2026-12-01T01:00:00+00:00", 1_796_083_200, 1_796_083_200 + 3600),
        ("from=2026-12-01&to=2026-12-31", 1_796_083_200, 1_796_083_200 + 31 * 86_400),
        ("from=2026-12-01T12:00:00Z&to=2026-12-02", 1_796_083_200 + 12 * 3600, 1_796_083_200 + 2 * 86_400),
        ("from=2026-12-01&to=2026-12-02T00:00:00Z", 1_796_083_200, 1_796_083_200 + 86_400),
        (f"from=30d&to={to_iso(DAY)[:10]}", NOW - 30 * 86_400, DAY + 86_400),
        ("from=7d", NOW - 7 * 86_400, NOW + 3600),
        ("from=48h&to=24h", NOW - 2 * 86_400, NOW - 86_400),
    ],
)
def test_ranges_may_be_written_as_people_write_them(text: str, since: int, until: int) -> None:
    """A day, a zone with its plus as it is, and a span before now."""
    assert query(text)[:2] == (since, until)


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("from=2099-01-01", "invalid_value", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "invalid_value", "from"),
        ("from=7d&to=7d", "invalid_value", "from"),
        ("from=2026-01-02 0000000", "invalid_value", "from"),
        ("from=2026-01-02&to=2026-01-01", "invalid_value", "from"),
        ("from=2020-01-01&bucket=hour", "invalid_value", "from"),
        ("from=1971-01-01&to=9999-01-01", "invalid_value", "from"),
        ("from=yesterday", "invalid_value", "from"),
        ("from=1969-12-31", "invalid_value", "from"),
        ("to=0001-01-01T00:00:00%2B14:00", "invalid_value", "to"),
        ("to=9999-12-31T23:59:59-14:00", "invalid_value", "to"),
        ("to=", "invalid_value", "to"),
        ("bucket=week", "invalid_value", "bucket"),
        ("group_by=name", "invalid_value", "group_by"),
        ("format=xml", "invalid_value", "format"),
        ("since=7d", "unknown_parameter", "since"),
        ("token_id=a&token_id=b", "duplicate_key", "token_id"),
    ],
)
def test_what_does_not_fit_is_named(text: str, code: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        query(text)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_everybody_sees_their_own() -> None:
    def seen(record: Any, text: str = "") -> Any:
        return query(text, principal(record)).token_ids

    assert seen(ADMIN) is None
    assert seen(ADMIN, "token_id=environment") == {"environment"}
    assert seen(ANN) == {"tok_ann", "tok_robot"}
    assert seen(ANN, "token_id=tok_robot") == {"tok_robot"}
    assert seen(BOB) == {"tok_bob", "tok_child"}
    assert seen(ROBOT) == {"tok_robot"}
    strangers = ((ANN, "tok_bob"), (ANN, "environment"), (ANN, "tok_gone"), (ROBOT, "tok_ann"), (CHILD, "tok_bob"))
    for record, other in strangers:
        with pytest.raises(NotFound):
            seen(record, f"token_id={other}")


def test_the_answer_names_tokens_and_adds_up() -> None:
    rows = [
        ReportRow(DAY, "tok_ann", UsageTotals(requests=2, cost=1500)),
        ReportRow(DAY, "tok_gone", UsageTotals(requests=1, errors=1)),
    ]
    told = json.loads(msgspec.json.encode(to_json(query("group_by=token&from=2027-01-15"), rows, TOKENS)))
    nothing = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"), 0)
    rest = {"partial": 0, "estimated": 0}
    start = {"start": "2027-01-15T00:00:00Z"}
    assert told == {
        "object": "list",
        "bucket": "day",
        "group_by": "token",
        "from": "2027-01-15T00:00:00Z",
        "to": "2027-01-15T09:00:00Z",
        "data": [
            {
                **start,
                "group": "tok_ann",
                "name": ANN.name,
                "requests": 2,
                **nothing,
                "cost_usd": 0.0015,
                "errors": 0,
                **rest,
            },
            {**start, "group": "tok_gone", "name": None, "requests": 1, **nothing, "cost_usd": 0, "errors": 1, **rest},
        ],
        "total": {"requests": 3, **nothing, "cost_usd": 0.0015, "errors": 1, **rest},
    }
    assert "name" not in to_json(query("group_by=model"), rows, TOKENS)["data"][0]


def routes(file: SqliteUsageStore) -> UsageEndpoints:
    return UsageEndpoints(Management(TOKENS), UsageReports(file, BoundedThreads("reports")))  # type: ignore[arg-type]


async def got(file: SqliteUsageStore, text: str, who: Principal = ENVIRONMENT_KEY) -> tuple[Any, str]:
    """Headers and body."""
    response: Any = await routes(file).read(Asking(text, who))  # type: ignore[arg-type]
    return response.headers, response.body.decode()


async def test_the_route_answers_json_and_csv(file: SqliteUsageStore) -> None:
    file.write(
        [
            ledger_entry(1, at=(NOW - 1) * 1000, token_id="tok_ann"),
            ledger_entry(2, at=(NOW - 1) * 1000, token_id="tok_bob"),
        ]
    )
    told = json.loads((await got(file, "group_by=token", principal(ANN)))[1])
    assert [(row["group"], row["requests"], row["cost_usd"]) for row in told["data"]] == [("tok_ann", 1, 0.0015)]
    headers, table = await got(file, "group_by=token&format=csv")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
    assert [line[1:4] for line in read_csv(table)] == [
        ["group", "name", "requests"], ["tok_ann", "ann", "1"], ["tok_bob", "bob", "1"]
    ]  # fmt: skip


async def test_the_route_says_what_it_cannot(file: SqliteUsageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write([ledger_entry(number, at=(NOW - 1) * 1000, model=f"m{number}") for number in range(3)])
    monkeypatch.setattr(endpoint, "query_of", lambda *_: ReportQuery(0, NOW, "day", "model", max_rows=2))
    with pytest.raises(BadRequest, match="more than 2 rows"):
        await got(file, "")
    file.close()
    file.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable):
        await got(file, "")
