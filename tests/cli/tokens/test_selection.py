"""Which tokens `list` shows, in which order and form."""

from pathlib import Path

import pytest

from tests.cli.tokens.command_line import run, run_failing, run_json
from tests.support.tokens import content, entry


@pytest.fixture(autouse=True)
def _tokens(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_bytes(
        content(
            entry("sk-a1b2c3d4e5fghij", name="Zebra", created_at="2026-01-02T00:00:00Z", owner="ann@example.com"),
            entry(
                "sk-x9y8z7w6v5uabcd",
                name="apple",
                prefix="sk-x9y8z7w6v5u",
                created_at="2026-01-01T00:00:00Z",
                last_used="2026-02-01T00:00:00Z",
            ),
            entry(
                "sk-m1m2m3m4m5mnop",
                name="mid",
                created_at="2026-01-03T00:00:00Z",
                last_used="2026-03-01T00:00:00Z",
                expires_at="2099-01-01T00:00:00Z",
            ),
        )
    )


def listed(folder: Path, *arguments: str) -> list[str]:
    return [token["name"] for token in run_json(folder, "list", *arguments)["tokens"]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("created", ["mid", "Zebra", "apple"]),
        ("last-used", ["mid", "apple", "Zebra"]),
        ("name", ["apple", "mid", "Zebra"]),
        ("expires", ["mid", "Zebra", "apple"]),
    ],
)
def test_a_list_is_sorted(tmp_path: Path, order: str, expected: list[str]) -> None:
    assert listed(tmp_path, "--sort", order) == expected
    assert listed(tmp_path, "--sort", order, "--limit", "2") == expected[:2]
    assert run(tmp_path, "list", "--sort", order).index(f"Name: {expected[0]}") < 60


@pytest.mark.parametrize(
    ("searched", "expected"),
    [
        ("zeb", ["Zebra"]),
        ("ANN@", ["Zebra"]),
        ("sk-x9y8z7w6v5u...", ["apple"]),
        ("tok_", ["Zebra", "apple", "mid"]),
        ("nothing", []),
    ],
)
def test_a_search_finds_names_owners_ids_and_prefixes(tmp_path: Path, searched: str, expected: list[str]) -> None:
    assert listed(tmp_path, "--search", searched) == expected


def test_a_table_has_one_line_a_token_with_its_id(tmp_path: Path) -> None:
    ids = [token["id"] for token in run_json(tmp_path, "list")["tokens"]]
    headings, *rows = run(tmp_path, "list", "--table").splitlines()
    assert headings.split() == ["ID", "TOKEN", "NAME", "STATUS", "OWNER", "CREATED", "LAST", "USED", "EXPIRES"]
    assert [row.split()[0] for row in rows] == ids
    assert rows[2].split()[-2:] == ["2026-03-01T00:00:00", "2099-01-01T00:00:00"]


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "x"], ["--sort", "x"], ["--table", "--tree"]])
def test_other_selections_are_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    assert "usage: " in run_failing(tmp_path, "list", *arguments, code=2)
