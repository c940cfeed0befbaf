"""Which routes of an upstream are what."""

import pytest

from gateway.core import upstream_routes as routes


def test_inference_is_a_post_to_exactly_these_paths() -> None:
    assert all(routes.is_inference("POST", path) for path in routes.INFERENCE)
    for method, path in (("GET", "responses"), ("DELETE", "rerank"), ("POST", "responses/x"), ("POST", "Rerank")):
        assert not routes.is_inference(method, path)


@pytest.mark.parametrize(
    "path",
    [
        "organization", "organization/admin_api_keys", "ORGANIZATION/costs", "organization%2Fcosts", "model/info", "key",
        "fine_tuning/checkpoints/x/permissions", "load_lora_adapter", "spend/logs", "workspaces",
    ],
)  # fmt: skip
def test_what_administers_the_account(path: str) -> None:
    assert routes.is_administrative(path)


@pytest.mark.parametrize("path", ["files", "models", "fine_tuning/jobs", "keys2", "x/organization", "vector_stores"])
def test_what_does_not(path: str) -> None:
    assert not routes.is_administrative(path)


def test_the_longest_prefix_of_whole_segments_opens() -> None:
    prefixes = ("a", "a/b", "c")
    assert [routes.opening_prefix(path, prefixes) for path in ("a", "a/x", "a/b", "a/b/c", "a/bc", "ab", "C")] == [
        "a", "a", "a/b", "a/b", "a", None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "prefix", "segments", "collection"),
    [
        ("files", "", (), "files"),
        ("files/f1/content", "files", ("f1", "content"), "files"),
        ("fine_tuning/jobs", "fine_tuning", (), "fine_tuning/jobs"),
        ("fine_tuning/jobs/j1", "fine_tuning", ("j1",), "fine_tuning/jobs"),
        ("chat/completions/c1", "", ("c1",), "chat/completions"),
        ("utils/token_counter", "utils/token_counter", (), "utils"),
        ("utils/other", "utils", ("other",), "utils"),
    ],
)
def test_what_follows_the_name_of_the_collection(
    path: str, prefix: str, segments: tuple[str, ...], collection: str
) -> None:
    assert routes.object_segments(path, prefix) == segments
    assert routes.collection(path) == collection
