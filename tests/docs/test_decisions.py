"""Every decision has the same form: when, whether it still holds, where it is, and what was rejected."""

import re
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

PAGES = sorted((ROOT / "docs" / "decisions").glob("*.md"))
FORM = re.compile(
    r"# (\d{3}) .+\n\n(20\d\d-\d\d-\d\d) · (accepted|superseded by \d{3})[^·\n]* · (`.+`)\n\n"
    r"\*\*Context\.\*\* .+?\n\n\*\*Choice\.\*\* .+?\n\n\*\*Rejected\.\*\* .+?\n\n\*\*Price\.\*\* .+\n",
    re.DOTALL,
)


def test_each_decision_has_a_number_of_its_own() -> None:
    assert len({page.name[:3] for page in PAGES}) == len(PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_decision_has_every_part_in_ten_lines_or_so(page: Path) -> None:
    text = page.read_text()
    match = FORM.fullmatch(text)
    assert match, "title, date · status · files, then Context, Choice, Rejected and Price"
    assert match[1] == page.name[:3]
    assert len(text.splitlines()) <= 18
