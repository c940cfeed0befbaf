"""What is sent to the management API: read strictly, with the field's name in every complaint."""

import pytest

from gateway.core.errors import BadRequest
from gateway.core.validators import string
from gateway.http.params import MAX_PER_PAGE, PAGE_READERS, Pagination, pagination_of, parse_query


class Asked:
    """A call with nothing but a query."""

    def __init__(self, query: str) -> None:
        self.query = query


def read(query: str) -> dict[str, object]:
    return parse_query(Asked(query), {**PAGE_READERS, "name": string})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {}),
        ("page=2&per_page=100", {"page": 2, "per_page": 100}),
        ("name=a%20b+c", {"name": "a b c"}),
        ("name=", {"name": ""}),
    ],
)
def test_what_fits_is_read(query: str, found: dict[str, object]) -> None:
    assert read(query) == found


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("pages=2", "unknown_parameter", "pages"),
        ("Page=2", "unknown_parameter", "Page"),
        ("page=1&page=2", "duplicate_key", "page"),
        *[(f"page={bad}", "invalid_value", "page") for bad in ("0", "-1", "1.0", "x", "", "9" * 30, "%D9%A3", "1000000001")],
        ("per_page=101", "invalid_value", "per_page"),
        ("name=%ff", "invalid_value", None),
        ("&".join(f"a{n}=1" for n in range(200)), "invalid_value", None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(query: str, code: str, param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        read(query)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("page", "total", "items", "pages", "has_next", "has_prev"),
    [
        (Pagination(1, 3), 7, [0, 1, 2], 3, True, False),
        (Pagination(3, 3), 7, [6], 3, False, True),
        (Pagination(4, 3), 7, [], 3, False, True),
        (Pagination(1, 3), 0, [], 0, False, False),
        (Pagination(1, 3), 3, [0, 1, 2], 1, False, False),
        (Pagination(10**9, 100), 5, [], 1, False, True),
    ],
)
def test_pages(page: Pagination, total: int, items: list[int], pages: int, has_next: bool, has_prev: bool) -> None:
    assert page.select(list(range(total))) == items
    summary = page.summary(total)
    assert (summary["page"], summary["per_page"], summary["total"]) == (page.number, page.size, total)
    assert (summary["total_pages"], summary["has_next"], summary["has_prev"]) == (pages, has_next, has_prev)


def test_a_list_comes_on_one_page_as_far_as_it_goes() -> None:
    assert pagination_of({}) == Pagination(1, MAX_PER_PAGE)
