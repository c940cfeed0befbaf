"""docs/architecture.md shows the path of a request, the states of the usage tracker and the glossary as they are."""

import re
from collections.abc import Iterable
from pathlib import Path

from gateway.inference.usage_tracker import CHARGES, Outcome, State
from tests.docs.blocks import blocks
from tests.support.gateway import ROOT, running_gateway

PAGE = "docs/architecture.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
LARGEST_GLOSSARY = 25


def files_of(picture: str) -> list[str]:
    """The files of a picture, from top to bottom."""
    return re.findall(r"(?<!\()\b[a-z_]+(?:/[a-z_0-9]+)+\.py", re.sub(r"\([^)]*\)", "", picture))


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def test_every_file_of_the_page_exists() -> None:
    pictures = [block.text for block in blocks(PAGE) if block.language == "path"]
    in_text = re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*\.py)`", TEXT)
    found = [name for picture in pictures for name in files_of(picture)] + in_text
    assert len(found) > 40
    assert not [name for name in found if not (ROOT / "gateway" / name).exists() and not (ROOT / name).exists()]


async def test_the_picture_has_the_middleware_in_its_order(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, GATEWAY_CORS_ORIGINS="https://app.example.com") as gateway:
        steps = [type(step) for step in gateway.app.pipeline.middleware]
    modules = unique(step.__module__.removeprefix("gateway.").replace(".", "/") + ".py" for step in steps)
    picture = next(block.text for block in blocks(PAGE) if block.language == "path")
    steps_shown = re.findall(r"├── (\S+\.py)", picture.partition("http/endpoints/")[0])
    assert steps_shown == modules


def test_the_table_of_charges_is_that_of_the_code() -> None:
    head = re.search(r"^\| state \| (.+) \|$", TEXT, re.MULTILINE)
    assert head
    outcomes = [Outcome(cell.strip()) for cell in head[1].split("|")]
    shown = {
        State(state): dict(zip(outcomes, cells, strict=True))
        for state, *cells in rows("Usage tracker: states and charges")
    }
    assert shown == {
        state: {outcome: charged.name.lower().replace("_", " ") for outcome, charged in row.items()}
        for state, row in CHARGES.items()
    }


def test_the_diagram_has_every_state_of_the_usage_tracker() -> None:
    (picture,) = [block.text for block in blocks(PAGE) if block.language == "mermaid"]
    drawn = {name for arrow in re.findall(r"(\S+) --> (\S+?):", picture) for name in arrow} - {"[*]"}
    assert drawn == {state.value.replace(" ", "_") for state in State}


def test_the_glossary_is_small_and_in_order() -> None:
    nouns = [noun for noun, _ in rows("Glossary")]
    assert nouns == sorted(nouns)
    assert 0 < len(nouns) <= LARGEST_GLOSSARY
