"""Request bodies: what was checked is what is sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.schema import BodyReader, inference_request, model_in, with_field

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_body_is_read_as_the_standard_reader_does(fields: dict[str, Any]) -> None:
    try:
        body = json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert BodyReader().read(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends too early"),
        (b"{", "ends too early"),
        (b"[]", "it must be an object"),
        (b"null", "it must be an object"),
        (b'{"a": 1,}', "malformed"),
        (b'{"a": 1} x', "trailing"),
        (b'{"a": NaN}', "invalid"),
        (b'{"a": "\xff"}', "byte .* is not UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=f"(?i)could not parse the JSON body.*{reason}") as caught:
        BodyReader().read(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b'{"model": "a", "model": "a"}', b'{"model": "a", "x": {}, "m\\u006fdel": "b"}'])
def test_a_key_twice_is_refused_however_it_is_written(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        BodyReader().read(body)
    assert caught.value.code == "duplicate_key"


def test_a_reader_begins_anew_after_each_body() -> None:
    reader = BodyReader()
    for body in (b'{"a": 1, "a": 2}', b'{"a": 1, "b', b"[]"):
        with pytest.raises(BadRequest):
            reader.read(body)
    assert reader.read(b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(("stream", "is_stream"), [(True, True), (False, False), (None, False)])
def test_stream_is_true_false_or_null(stream: bool | None, is_stream: bool) -> None:
    made = inference_request("chat/completions", {"model": "m", "stream": stream}, b"{}")
    assert (made.stream, made.model, made.endpoint, made.body) == (is_stream, "m", "chat/completions", b"{}")
    assert inference_request("x", {"model": "m"}, b"").stream is False


@pytest.mark.parametrize("stream", [0, 1, "true", [], {}])
def test_any_other_stream_is_refused(stream: object) -> None:
    with pytest.raises(BadRequest) as caught:
        inference_request("x", {"model": "m", "stream": stream}, b"")
    assert (caught.value.code, caught.value.param) == ("invalid_type", "stream")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"model": None}, "missing_required_parameter"),
        ({"model": ""}, "missing_required_parameter"),
        ({"model": 4}, "invalid_type"),
        ({"model": ["a"]}, "invalid_type"),
    ],
)
def test_a_model_must_be_named(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        model_in(fields)
    assert (caught.value.code, caught.value.param) == (code, "model")


def test_setting_one_field_copies_the_others_byte_for_byte() -> None:
    body = b'{ "seed":1.0, "big": 123456789012345678901234567890, "model" : "a", "text": "\\u00e9\\/", "l":[ 1,2 ] }'
    changed = with_field(body, "model", "b")
    assert changed == b'{"seed":1.0,"big":123456789012345678901234567890,"model":"b","text":"\\u00e9\\/","l":[ 1,2 ]}'
    assert with_field(b"{}", "model", "é") == '{"model":"é"}'.encode()
