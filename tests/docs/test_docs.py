"""Pages and code say the same: settings, errors, examples, links."""

import re
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from gateway.config.settings import SPECS
from gateway.tokens.models import Status
from gateway.tokens.stores import json_format
from tests.docs.blocks import block, pages
from tests.support.gateway import ROOT, environment, gateway_process

PATTERNS = {"gateway/a/b.py", "tests/a/test_b.py", "docs/decisions/NNN-title.md"}
"""What pages call files that may have any name."""
NAMES = {spec.name for spec in SPECS} | {"GATEWAY_CONFIG"}


def test_the_readme_has_every_setting_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`|–) \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _, _ in rows} == NAMES
    shown = {name: (default, help_text) for name, default, help_text in rows}
    for spec in SPECS:
        assert shown[spec.name] == (spec.default, spec.help)


def test_the_example_environment_has_every_setting_with_its_default() -> None:
    lines = re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in lines} == NAMES
    defaults = dict(lines)
    assert all(defaults[spec.name] == spec.default for spec in SPECS)


def test_the_example_environment_can_be_used_as_it_is(tmp_path: Path) -> None:
    text = re.sub(r"^#([A-Z_]+=)", r"\1", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text)
    kept = {name: value for name, value in environment(tmp_path).items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", "--check"]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_the_example_tokens_show_each_status() -> None:
    found = json_format.decode((ROOT / "api_tokens.json.example").read_bytes())
    assert [record.status(1_764_200_000) for record in found.tokens] == [Status.ACTIVE, Status.EXPIRED, Status.REVOKED]


def test_every_error_code_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    codes = set(re.findall(r'code="(\w+)"', source))
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "errors.md").read_text()))
    assert not codes - documented


async def test_every_metric_is_documented(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as gateway:
        async with aiohttp.ClientSession() as client, client.get(f"{gateway.url}/metrics") as response:
            page = await response.text()
    names = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    assert "gateway_requests_total" in names
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "usage.md").read_text()))
    assert not {name for name in names - documented if name.startswith("gateway_")}


every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        if "://" not in target:
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file), f"{target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


async def test_the_provider_of_the_page_works_through_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "shouting_provider.py").write_text(block("docs/providers.md", "provider").text)
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gateway.providers]\nshout = shouting_provider:create\n")
    body = {"model": "shout", "messages": [{"role": "user", "content": "hello"}]}
    with gateway_process(tmp_path, GATEWAY_BACKEND="shout", PYTHONPATH=f"{ROOT}:{tmp_path}") as gateway:
        async with aiohttp.ClientSession() as client:
            async with client.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                whole = await response.json()
            async with client.post(f"{gateway.url}/v1/chat/completions", json={**body, "stream": True}) as response:
                stream = await response.text()
            body["messages"] = [{"role": "user", "content": 'she said "hi"\n\\ 👋'}]
            async with client.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                quoted = await response.json()
    assert whole["choices"][0]["message"]["content"] == "HELLO"
    assert '"content":"HELLO"' in stream
    assert stream.endswith("data: [DONE]\n\n")
    assert quoted["choices"][0]["message"]["content"] == 'SHE SAID "HI"\n\\ 👋'


def test_the_provider_of_the_page_has_thirty_lines_or_so() -> None:
    assert len(block("docs/providers.md", "provider").text.splitlines()) <= 36


@every_page
def test_targets_of_make_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*(?: [a-z][a-z-]*)*)", page.read_text(), re.MULTILINE)
    assert not {target for words in named for target in words.split()} - targets


@every_page
def test_paths_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:gateway|tests|docs|scripts|bench|requirements)/[\w./-]*)`", page.read_text()))
    assert not [path for path in sorted(named - PATTERNS) if not (ROOT / path).exists()]
