"""What the ledger tells: sums that are exact, for those who may see them, in a form that no spreadsheet runs."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.authorizer import Authorizer, authorizer_for
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.clock import LATEST
from gateway.core.errors import BadRequest, NotFound, StoreUnavailable
from gateway.core.money import format_usd
from gateway.http import params
from gateway.http.endpoints import usage as room
from gateway.http.endpoints.usage import READERS, UsageEndpoints, answer, query_of
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.usage import reports
from gateway.usage.accounting import UsageReports
from gateway.usage.models import Usage
from gateway.usage.reports import NOTHING, ReportQuery, ReportRow, TooManyRows, UsageTotals, as_csv, total_of
from gateway.usage.stores.sqlite import LEDGER_FILE, SUMS, SqliteUsageStore
from tests.support.tokens import NOW
from tests.tokens.test_hierarchy import token, view
from tests.usage.stores.test_sqlite import made

DAY = 1_799_971_200
"""The first second of the day that NOW is in."""


@pytest.fixture
def file(tmp_path: Path) -> SqliteUsageStore:
    return SqliteUsageStore(tmp_path / LEDGER_FILE)


def week(file: SqliteUsageStore) -> SqliteUsageStore:
    """Two tokens, two models and no token at all, on three days."""
    used = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=40, reasoning_tokens=4)
    file.write(
        [
            made(1, used, at=DAY * 1000, cost=1500),
            made(2, used, at=(DAY + 3599) * 1000, cost=1, status=500, partial=True),
            made(3, used, at=(DAY + 3600) * 1000, token_id="tok_2", model="o1", owner=None, estimated=True),
            made(4, used, at=(DAY - 1) * 1000, token_id="environment", model=None, owner=None, cost=0),
            made(5, used, at=(DAY + 86_400) * 1000, cost=2_000_000),
        ]
    )
    return file


def asked(file: SqliteUsageStore, **fields: Any) -> list[tuple[int | None, str | None, int, int]]:
    query = ReportQuery(**{"since": 0, "until": LATEST, **fields})
    return [(row.start, row.group, row.totals.requests, row.totals.cost) for row in reports.read(file, query)]


def test_sums_are_those_of_hours(file: SqliteUsageStore) -> None:
    assert UsageTotals._fields == SUMS
    found = reports.read(week(file), ReportQuery(DAY, DAY + 1, "hour", "token"))
    assert found == [ReportRow(DAY, "tok_1", UsageTotals(2, 200, 20, 80, 8, 1501, 1, 1, 0))]
    assert reports.total(found) == found[0].totals
    assert reports.total([]) == NOTHING == UsageTotals()


def test_every_way_to_cut_it(file: SqliteUsageStore) -> None:
    week(file)
    assert asked(file) == [(None, None, 5, 2_003_001)]
    assert asked(file, bucket="day") == [
        (DAY - 86_400, None, 1, 0),
        (DAY, None, 3, 3001),
        (DAY + 86_400, None, 1, 2_000_000),
    ]
    assert asked(file, bucket="hour", until=DAY + 7200) == [
        (DAY - 3600, None, 1, 0), (DAY, None, 2, 1501), (DAY + 3600, None, 1, 1500)
    ]  # fmt: skip
    assert asked(file, group_by="model") == [(None, None, 1, 0), (None, "gpt-4o", 3, 2_001_501), (None, "o1", 1, 1500)]
    assert asked(file, group_by="owner") == [(None, None, 2, 1500), (None, "ann@example.com", 3, 2_001_501)]
    assert [group for _, group, _, _ in asked(file, group_by="token")] == ["environment", "tok_1", "tok_2"]


def test_a_range_is_widened_to_whole_hours(file: SqliteUsageStore) -> None:
    week(file)
    assert asked(file, since=DAY + 1800, until=DAY + 3600) == [(None, None, 2, 1501)]
    assert asked(file, since=DAY + 1800, until=DAY + 3601) == [(None, None, 3, 3001)]
    assert asked(file, since=DAY + 7200, until=DAY + 86_400) == []


def test_an_absent_ledger_is_empty(file: SqliteUsageStore) -> None:
    assert asked(file) == []
    assert total_of(file, "tok_1") == NOTHING
    assert not file.path.exists()


@pytest.mark.parametrize("others", [0, 100_000])
def test_any_number_of_tokens_can_be_asked_for(file: SqliteUsageStore, others: int) -> None:
    ids = frozenset({"tok_2", "environment", "tok_\"'", *(f"tok_other_{number}" for number in range(others))})
    assert asked(week(file), group_by="token", token_ids=ids) == [
        (None, "environment", 1, 0), (None, "tok_2", 1, 1500)
    ]  # fmt: skip
    assert asked(file, token_ids=frozenset()) == []


def test_too_many_rows_are_not_read(file: SqliteUsageStore) -> None:
    assert len(asked(week(file), bucket="day", max_rows=3)) == 3
    with pytest.raises(TooManyRows, match="more than 2 rows"):
        asked(file, bucket="day", max_rows=2)


def test_the_total_of_one_token(file: SqliteUsageStore) -> None:
    week(file)
    assert total_of(file, "tok_1") == UsageTotals(3, 300, 30, 120, 12, 2_001_501, 1, 1, 0)
    assert total_of(file, "tok_1", DAY + 86_400 + 1800).cost == 2_000_000
    assert total_of(file, "tok_1", DAY + 90_000) == total_of(file, "tok_9") == NOTHING


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0"), (1, "0.000001"), (1500, "0.0015"), (100_000, "0.1"), (10**7, "10"), (12_345_678, "12.345678"), (-1, "-0.000001")],
)  # fmt: skip
def test_money_is_exact(micro: int, text: str) -> None:
    assert format_usd(micro) == text


@given(st.integers(-(2**63), 2**63))
def test_money_survives_its_text(micro: int) -> None:
    shown = msgspec.json.encode(reports.as_json(UsageTotals(cost=micro)))
    assert json.loads(shown, parse_float=Decimal, parse_int=Decimal)["cost_usd"].scaleb(6) == micro


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_a_line_of_headings_and_one_for_each_row() -> None:
    rows = [ReportRow(DAY, "tok_1", UsageTotals(1, 2, 3, 4, 5, 1500, 0, 0, 1)), ReportRow(DAY, None, NOTHING)]
    assert as_csv(rows) == (
        "start,group,requests,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,cost_usd,errors,partial,estimated"
        "\r\n2027-01-15T00:00:00Z,tok_1,1,2,3,4,5,0.0015,0,0,1\r\n2027-01-15T00:00:00Z,,0,0,0,0,0,0,0,0,0\r\n"
    )
    assert read_csv(as_csv(rows, {"tok_1": 'a "b", c'}, has_start=False))[1][:3] == ["tok_1", 'a "b", c', "1"]
    assert read_csv(as_csv([], {}))[0][:3] == ["start", "group", "name"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_no_name_is_a_formula(name: str) -> None:
    line = read_csv(as_csv([ReportRow(DAY, name, NOTHING)], {name: name}))[1]
    assert line[1] == line[2] == f"'{name}"


# What the route makes of a query, for whom.


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
    return Principal(record.name, record.role, SecretMatch(record, None), (), record.hash)


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
    assert query("to=2026-12-08").since == 1_796_083_200
    assert query("to=9999-12-31T23:59:59&from=9999-12-31").until == LATEST


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("from=2099-01-01", "invalid_value", "from"),
        ("from=2026-01-02&to=2026-01-02", "invalid_value", "from"),
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
    told = json.loads(msgspec.json.encode(answer(query("group_by=token&from=2027-01-15"), rows, TOKENS)))
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
    assert "name" not in answer(query("group_by=model"), rows, TOKENS)["data"][0]


def routes(file: SqliteUsageStore) -> UsageEndpoints:
    return UsageEndpoints(Management(TOKENS), UsageReports(file))  # type: ignore[arg-type]


async def got(file: SqliteUsageStore, text: str, who: Principal = ENVIRONMENT_KEY) -> tuple[Any, str]:
    """Headers and body."""
    response: Any = await routes(file).read(Asking(text, who))  # type: ignore[arg-type]
    return response._lines, response._content.decode()


async def test_the_route_answers_json_and_csv(file: SqliteUsageStore) -> None:
    file.write([made(1, at=(NOW - 1) * 1000, token_id="tok_ann"), made(2, at=(NOW - 1) * 1000, token_id="tok_bob")])
    told = json.loads((await got(file, "group_by=token", principal(ANN)))[1])
    assert [(row["group"], row["requests"], row["cost_usd"]) for row in told["data"]] == [("tok_ann", 1, 0.0015)]
    headers, table = await got(file, "group_by=token&format=csv")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
    assert [line[1:4] for line in read_csv(table)] == [
        ["group", "name", "requests"], ["tok_ann", "ann", "1"], ["tok_bob", "bob", "1"]
    ]  # fmt: skip


async def test_the_route_says_what_it_cannot(file: SqliteUsageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write([made(number, at=(NOW - 1) * 1000, model=f"m{number}") for number in range(3)])
    monkeypatch.setattr(room, "query_of", lambda *_: ReportQuery(0, NOW, "day", "model", max_rows=2))
    with pytest.raises(BadRequest, match="more than 2 rows"):
        await got(file, "")
    file.close()
    file.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable):
        await got(file, "")
