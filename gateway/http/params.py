"""Reads what callers of the management API send: JSON bodies and queries, each field by its reader.

An unknown field is refused: a misspelt restriction would restrict nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from gateway.core.errors import BadRequest
from gateway.core.json_body import parse_object
from gateway.core.validators import parse_whole_number
from gateway.http.context import RequestContext
from gateway.tokens.validation import FieldError

MAX_FORM_BYTES = 64 * 1024
FORM_SECONDS = 10.0
"""How long the body of such a request may take to arrive: some of these routes need no credential."""
MAX_PER_PAGE = 100
_LARGEST_PAGE = 10**9

Readers = Mapping[str, Callable[[Any], Any]]
"""By the names of fields: functions that return the value to use, and raise ValueError with the rule that is broken."""


async def parse_json_params(ctx: RequestContext, readers: Readers, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the fields of a JSON body that were sent. An absent body counts as an empty object.

    Raises BadRequest for an unknown, missing or invalid field, with its name as ``param``, and for any query.
    """
    parse_query(ctx, {})
    body = await ctx.request.read(MAX_FORM_BYTES, FORM_SECONDS)
    given = parse_object(body) if body.strip() or required else {}
    for name in given:
        if name not in readers:
            known = ", ".join(readers) or "none"
            raise BadRequest(
                f"Unknown field {name[:100]!r}. Known: {known}.", code="unknown_parameter", param=name[:100]
            )
    for name in required:
        if name not in given:
            raise BadRequest(f"`{name}` is missing.", code="missing_required_parameter", param=name)
    return {name: _read(readers[name], name, given[name]) for name in given}


def parse_query(ctx: RequestContext, readers: Readers) -> dict[str, Any]:
    """Returns the parameters of the query that were sent.

    Raises BadRequest for an unknown or invalid parameter, and for one that appears twice, with its name as ``param``.
    """
    try:
        pairs = parse_qsl(ctx.query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise BadRequest("The query is not valid.", code="invalid_value") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in readers:
            known = ", ".join(readers) or "none"
            raise BadRequest(
                f"Unknown parameter {name[:100]!r}. Known: {known}.", code="unknown_parameter", param=name[:100]
            )
        if name in found:
            raise BadRequest(f"`{name}` appears twice in the query.", code="duplicate_key", param=name)
        found[name] = _read(readers[name], name, value)
    return found


def _read(reader: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return reader(value)
    except FieldError as error:
        raise BadRequest(f"{error}.", code="invalid_value", param=error.field) from None
    except ValueError as error:
        raise BadRequest(f"`{name}`: {error}.", code="invalid_value", param=name) from None


class Pagination(NamedTuple):
    """A page of a list: its number, counted from 1, and how many items a page has."""

    number: int
    size: int

    def select(self, items: list[Any]) -> list[Any]:
        """Returns the items of the page."""
        first = (self.number - 1) * self.size
        return items[first : first + self.size]

    def summary(self, total: int) -> dict[str, Any]:
        """Returns the ``pagination`` object for a list of ``total`` items."""
        pages = -(-total // self.size)
        return {
            "page": self.number,
            "per_page": self.size,
            "total": total,
            "total_pages": pages,
            "has_next": self.number < pages,
            "has_prev": self.number > 1,
        }


def pagination_of(query: Mapping[str, Any]) -> Pagination:
    """Returns the page that a query asks for, which ``PAGE_READERS`` have read."""
    return Pagination(query.get("page", 1), query.get("per_page", MAX_PER_PAGE))


PAGE_READERS: Readers = {
    "page": lambda value: _number(value, _LARGEST_PAGE),
    "per_page": lambda value: _number(value, MAX_PER_PAGE),
}


def _number(value: str, largest: int) -> int:
    number = parse_whole_number(value, 1, largest)
    if number is None:
        raise ValueError(f"must be a whole number, 1 to {largest}")
    return number
