"""Serves ``GET /api/usage``: what was used, when, by whom and for how much. Callers see the tokens that they may read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.admin.authorizer import Authorizer
from gateway.admin.tokens import TokenManagement
from gateway.auth.roles import Action, Scope
from gateway.core.clock import LATEST, to_iso
from gateway.core.errors import BadRequest
from gateway.core.validators import one_of, string
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.response import Response, json_response
from gateway.tokens import expiry
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.usage import reports
from gateway.usage.models import BUCKET_SECONDS, DAY_SECONDS, HOUR_SECONDS, MAX_REPORT_ROWS, ReportQuery, ReportRow
from gateway.usage.reports import UsageReports
from gateway.usage.store import TooManyRows

DEFAULT_DAYS = 7
_ZONE_AFTER_BLANK = re.compile(r"(?<=[0-9]) ([0-9]{2}:?[0-9]{2})$")


class UsageEndpoints:
    """Serves the usage report."""

    def __init__(self, management: TokenManagement, usage_reports: UsageReports) -> None:
        self._management = management
        self._reports = usage_reports

    async def read(self, ctx: RequestContext) -> Response:
        """Returns the report that the query asks for. Raises BadRequest for a range with too many rows."""
        filters = params.parse_query(ctx, READERS)
        authorizer = await self._management.authorizer(ctx.caller)
        query = query_of(filters, authorizer)
        is_csv = filters.get("format") == "csv"

        def render(rows: Sequence[ReportRow]) -> Response:
            if not is_csv:
                return json_response(200, to_json(query, rows, authorizer.tokens))
            names = _names(authorizer.tokens, rows) if query.group_by == "token" else None
            return Response(200, _CSV_HEADERS, reports.as_csv(rows, names).encode())

        try:
            return await self._reports.rows(ctx.caller.rate_key, query, render)
        except TooManyRows as error:
            raise _bad_range(f"{error}; ask for less at a time") from None


def query_of(filters: Mapping[str, Any], authorizer: Authorizer) -> ReportQuery:
    """Turns filters, as READERS read them, into a query.

    Raises BadRequest for an invalid range, NotFound for a token that the caller may not see.
    """
    now = authorizer.now
    until = filters["to"].end(now) if "to" in filters else int(now) + 1
    since = filters["from"].at(now) if "from" in filters else max(until - DEFAULT_DAYS * DAY_SECONDS, 0)
    bucket = filters.get("bucket", "day")
    if since >= until:
        raise _bad_range("it does not lie before the end")
    since, until = reports.round_down(since, HOUR_SECONDS), min(reports.round_up(until, HOUR_SECONDS), LATEST)
    if (until - since) // BUCKET_SECONDS[bucket] > MAX_REPORT_ROWS:
        raise _bad_range(f"there are more than {MAX_REPORT_ROWS} times from then to the end, by the {bucket}")
    return ReportQuery(
        since, until, bucket, filters.get("group_by"), visible_tokens(authorizer, filters.get("token_id"))
    )


def visible_tokens(authorizer: Authorizer, token_id: str | None) -> frozenset[str] | None:
    """Returns the ids whose usage the caller may see, or the one that it asks for. None means all, also deleted ones.

    Raises NotFound for a token that it may not see.
    """
    if authorizer.scope(Action.READ) is Scope.ALL:
        # Not looked up: what a deleted token has used stays, and ``environment`` and ``open`` never were one.
        return None if token_id is None else frozenset({token_id})
    if token_id is not None:
        return frozenset({authorizer.find(Action.READ, token_id).id})
    return authorizer.readable_ids()


def to_json(query: ReportQuery, rows: Sequence[ReportRow], tokens: TokenHierarchy) -> dict[str, Any]:
    """Returns the report as a JSON object, for msgspec."""
    names = _names(tokens, rows) if query.group_by == "token" else None
    return {
        "object": "list",
        "bucket": query.bucket,
        "group_by": query.group_by,
        "from": to_iso(query.since),
        "to": to_iso(query.until),
        "data": [_row_json(row, names) for row in rows],
        "total": reports.as_json(reports.total(rows)),
    }


def _row_json(row: ReportRow, names: Mapping[str, str] | None) -> dict[str, Any]:
    row_json: dict[str, Any] = {"start": to_iso(row.start), "group": row.group}
    if names is not None:
        row_json["name"] = names.get(row.group or "")
    return row_json | reports.as_json(row.totals)


def _names(tokens: TokenHierarchy, rows: Sequence[ReportRow]) -> dict[str, str]:
    """Returns the names of the tokens that still exist, by id."""
    found = (tokens.find_by_id(row.group) for row in rows if row.group is not None)
    return {record.id: record.name for record in found if record is not None}


def _bad_range(reason: str) -> BadRequest:
    return BadRequest(f"`from`: {reason}.", code="invalid_value", param="from")


class Moment(NamedTuple):
    """A date, a time, or a span before now, as it was written."""

    text: str

    def at(self, now: float) -> int:
        """Returns seconds since the epoch."""
        return expiry.past(self.text, now)

    def end(self, now: float) -> int:
        """Returns the same, and the end of the day for a date without a time: up to a day is with that day."""
        is_day = len(self.text) == len("2027-01-31") and self.text[4:5] == "-"
        return min(self.at(now) + (DAY_SECONDS if is_day else 0), LATEST)


def _moment(text: str) -> Moment:
    # A plus in a query is a blank: `...T10:30:00+00:00` arrives like this from everybody who does not write %2B.
    moment = Moment(_ZONE_AFTER_BLANK.sub(r"+\1", text))
    try:
        moment.at(0)
    except ValueError:
        raise ValueError(
            "must be a date or a time such as 2027-01-31 or 2027-01-31T10:30:00Z, or a span before now such as 7d"
        ) from None
    return moment


READERS: params.Readers = {
    "from": _moment,
    "to": _moment,
    "bucket": one_of("hour", "day"),
    "group_by": one_of("token", "model", "owner"),
    "format": one_of("json", "csv"),
    "token_id": string,
}
_CSV_HEADERS = {
    "Content-Type": "text/csv; charset=utf-8",
    "Content-Disposition": 'attachment; filename="usage.csv"',
    "Cache-Control": "no-store",
}
