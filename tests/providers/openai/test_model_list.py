"""Lists of models in every shape: the good entries count."""

import pytest

from gateway.core.upstream_errors import UpstreamInvalid
from gateway.providers.openai import model_list


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"object":"list","data":[{"id":"a"}]}', ["a"]),
        (b'[{"id":"a"},{"id":"b"}]', ["a", "b"]),
        (b'{"data":["a"]}', ["a"]),
        (b'{"models":[{"name":"a:7b","model":"a:7b"}]}', ["a:7b"]),
        (b'{"data":[{"id":"a"},{"id":5},{},null,7,{"id":""},{"model":"b"}]}', ["a", "b"]),
        (b'{"data":null}', []),
        (b'{"models":null}', []),
        (b'\xef\xbb\xbf{"data":[{"id":"a","score":NaN}]}', ["a"]),
    ],
)
def test_good_entries_are_listed(body: bytes, ids: list[str]) -> None:
    found = model_list.parse(body)
    assert [model["id"] for model in found] == ids
    assert all(model["object"] == "model" and "created" in model and "owned_by" in model for model in found)


def test_what_an_entry_says_is_kept() -> None:
    assert model_list.parse(b'[{"id":"a","object":"m","created":7,"owned_by":"x","max_model_len":9}]') == [
        {"id": "a", "object": "m", "created": 7, "owned_by": "x", "max_model_len": 9}
    ]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"5", b'{"data":5}', b"<html>", b"[" + b"," * model_list.MAX_VALUES + b"]"]
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        model_list.parse(body)
