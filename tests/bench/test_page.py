"""The page on speed shows the results that are committed beside it."""

import json
from xml.etree import ElementTree

import pytest

from bench import page


@pytest.mark.parametrize("name", page.rendered())
def test_the_page_was_rendered_from_the_committed_results(name: str) -> None:
    assert (page.DOCS / name).read_text() == page.rendered()[name], "`.venv/bin/python -m bench.page` renders it anew"


@pytest.mark.parametrize("name", [name for name in page.rendered() if name.endswith(".svg")])
def test_a_plot_is_svg_without_scripts(name: str) -> None:
    tags = {element.tag.partition("}")[2] for element in ElementTree.fromstring(page.rendered()[name]).iter()}
    assert tags == {"svg", "title", "rect", "text", "path"}


def test_a_ratio_is_computed_round_by_round() -> None:
    servers = {"gateway": [{"x": 10.0}, {"x": 30.0}, {"x": 8.0}], "other": [{"x": 5.0}, {"x": 10.0}, {"x": 8.0}]}
    assert page.ratio(servers, "other", "x") == (2.0, 1.0, 3.0)
    assert page.ratio(servers, "missing", "x") is None


def test_added_latency_is_that_beyond_the_upstream() -> None:
    servers = {"gateway": [{"x": 0.5}], "other": [{"x": 0.2}], "direct": [{"x": 0.1}]}
    ratio = page.added(servers, "other", "x")
    assert ratio is not None
    assert ratio.median == pytest.approx(4)


def test_a_server_that_was_by_chance_faster_than_the_upstream_adds_next_to_nothing() -> None:
    servers = {"gateway": [{"x": 0.3}], "other": [{"x": 0.1}], "direct": [{"x": 0.2}]}
    ratio = page.added(servers, "other", "x")
    assert ratio is not None
    assert ratio.median == pytest.approx(0.1 / page.LEAST_ADDED_MS)


@pytest.mark.parametrize(
    ("reached", "is_most", "shown"),
    [(0.9, False, "**no**"), (1.0, False, "yes"), (1.1, True, "**no**"), (0.9, True, "yes")],
)
def test_an_aim_says_whether_it_is_held(reached: float, is_most: bool, shown: str) -> None:
    assert page.Aim("speed", 1.0, page.spread([reached]), is_most=is_most).row()[3] == shown


def test_an_aim_that_was_not_measured_says_so() -> None:
    assert page.Aim("speed", 1.0, None).row()[2] == "not measured"


def test_the_results_name_what_ran() -> None:
    run = json.loads(page.RESULTS.read_text())
    assert set(run["versions"]) | set(run["missing"]) >= {"vllm-router", "sglang-router"}
    assert run["machine"]["python"]["sum_us"] > 0
