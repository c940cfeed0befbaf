"""Request bodies: what was checked is what is sent."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.json_body import (
    MAX_KEYS,
    JsonObject,
    parse_object,
    read_model,
    read_model_and_stream,
    read_stream,
    set_field,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def body_of(**fields: Any) -> JsonObject:
    return parse_object(json.dumps(fields).encode())


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_body_is_read_as_the_standard_reader_does(fields: dict[str, Any]) -> None:
    try:
        body = json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert dict(parse_object(body)) == json.loads(body)


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
def test_anything_but_a_json_object_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=f"(?i)could not parse the JSON body.*{reason}") as caught:
        parse_object(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b'{"model": "a", "model": "a"}', b'{"model": "a", "x": {}, "m\\u006fdel": "b"}'])
def test_a_key_twice_is_refused_however_it_is_written(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_object(body)
    assert caught.value.code == "duplicate_key"


@pytest.mark.parametrize("body", [b'{ "a" : 1 , "b":{"x":[1, 2]} }', b" { } ", '{"\u00e9": 1, "a,}": "}"}'.encode()])
def test_white_space_and_odd_keys_are_no_duplicates(body: bytes) -> None:
    assert dict(parse_object(body)) == json.loads(body)


@given(st.lists(st.tuples(st.text(max_size=3), JSON), max_size=4), st.booleans())
def test_a_body_is_refused_exactly_if_a_key_appears_twice(pairs: list[tuple[str, Any]], compact: bool) -> None:
    separators = (",", ":") if compact else (" , ", " : ")
    try:
        members = [json.dumps(key) + separators[1] + json.dumps(value, ensure_ascii=False) for key, value in pairs]
        body = ("{" + separators[0].join(members) + "}").encode()
    except UnicodeEncodeError:
        return
    if any("\\ud" in json.dumps(key) for key, _ in pairs):
        return
    has_duplicates = len({key for key, _ in pairs}) != len(pairs)
    try:
        assert dict(parse_object(body)) == dict(pairs)
        assert not has_duplicates
    except BadRequest as error:
        assert (error.code, has_duplicates) == ("duplicate_key", True)


@pytest.mark.parametrize("name", ["Model", "MODEL", "\u017ftream", "STREAM"])
def test_a_key_that_only_some_readers_take_for_the_model_is_refused(name: str) -> None:
    """Go's reader ignores case, the long s included, and takes the last of two keys."""
    with pytest.raises(BadRequest) as caught:
        parse_object(json.dumps({"model": "a", name: "b"}).encode())
    assert caught.value.code == "duplicate_key"


def test_a_value_that_cannot_be_read_is_refused_when_it_is_asked_for() -> None:
    with pytest.raises(BadRequest, match="out of range"):
        parse_object(b'{"a":1e999}')["a"]


@pytest.mark.parametrize(("stream", "is_stream"), [(True, True), (False, False), (None, False)])
def test_stream_is_true_false_or_null(stream: bool | None, is_stream: bool) -> None:
    assert read_stream(body_of(model="m", stream=stream)) is is_stream
    assert read_stream(body_of(model="m")) is False


@pytest.mark.parametrize("stream", [0, 1, "true", [], {}, [[]] * 100_000])
def test_any_other_stream_is_refused(stream: object) -> None:
    with pytest.raises(BadRequest) as caught:
        read_stream(body_of(model="m", stream=stream))
    assert (caught.value.code, caught.value.param) == ("invalid_type", "stream")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"model": None}, "missing_required_parameter"),
        ({"model": ""}, "missing_required_parameter"),
        ({"model": 4}, "invalid_type"),
        ({"model": ["a"]}, "invalid_type"),
        ({"model": "m" * 257}, "invalid_type"),
        ({"model": "\u00e9" * 257}, "invalid_type"),
        ({"model": [[]] * 100_000}, "invalid_type"),
        ({"model": "cheap,dear"}, "invalid_value"),
        ({"model": " m"}, "invalid_value"),
        ({"model": "m\n"}, "invalid_value"),
        ({"model": "m\u200b"}, "invalid_value"),
        ({"model": "m\x1b[2J"}, "invalid_value"),
    ],
)
def test_a_model_must_be_named(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_model(body_of(**fields))
    assert (caught.value.code, caught.value.param) == (code, "model")


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "ft:gpt-4o:org::id", "meta-llama/Llama-3", "models/x@y", "claude-3-5-sonnet@20240620", "x:free", "m" * 256,
     "\u00e9" * 256, "a b", "o'm+1=(2)"],
)  # fmt: skip
def test_names_of_models_are_accepted(name: str) -> None:
    assert read_model(body_of(model=name)) == name


@pytest.mark.parametrize("keys", [MAX_KEYS + 1, 100_000])
def test_more_keys_than_a_request_has_are_refused(keys: int) -> None:
    body = b"{%s}" % b",".join(b'"k%07d":0' % number for number in range(keys))
    with pytest.raises(BadRequest, match="more than 1000 keys"):
        parse_object(body)


def test_a_body_of_many_small_pieces_stays_as_small_as_it_is() -> None:
    """Decoding 4 MiB of them would take some 100 MiB. What has to be decoded is short, and is known by its length."""
    pieces = b"[" + b"[]," * (4 * 2**20 // 3) + b"[]]"
    many_keys = b",".join(b'"k%07d":0' % number for number in range(4 * 2**20 // 12))
    for body in (b'{"model":%s}' % pieces, b'{"model":"m","stream":%s}' % pieces, b"{%s}" % many_keys):
        tracemalloc.start()
        with pytest.raises(BadRequest):
            read_model_and_stream(parse_object(body))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * len(body)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"1,", b'{"a":1},'])
def test_a_body_of_too_many_elements_is_refused_wherever_they_are(piece: bytes) -> None:
    """The decoder would stop everything else for some seconds in a body of 64 MiB."""
    text = b'"' + b"x" * (16 * 2**20) + b'"'
    many = b"[" + piece * (16 * 2**20 // len(piece)) + b"0]"
    for body in (b'{"a":%s,"b":%s}' % (text, many), b'{"a":%s,"b":%s}' % (many, text)):
        with pytest.raises(BadRequest, match="more than 4000000 elements"):
            parse_object(body)
    assert len(parse_object(b'{"a":%s,"b":%s}' % (text, text))) == 2


def test_a_long_value_is_refused_before_it_is_decoded() -> None:
    fields = parse_object(b'{"a":"12345","b":12345}')
    assert (fields.get_short("a", 7), fields.get_short("b", 5), fields.get_short("c", 1)) == ("12345", 12345, None)
    with pytest.raises(BadRequest, match="`a` is too long"):
        fields.get_short("a", 6)


@pytest.mark.parametrize("size", [10, 2**21])
def test_a_body_that_is_not_utf8_is_refused_whatever_its_size(size: int) -> None:
    filling = "\u00e9".encode() * size
    assert parse_object(b'{"a":"%s"}' % filling)["a"] == "\u00e9" * size
    for broken in (filling + b"\xff", filling[:-1], b"\xff" + filling, b"\xed\xa0\x80" + filling):
        with pytest.raises(BadRequest, match="is not UTF-8"):
            parse_object(b'{"a":"%s"}' % broken)


@pytest.mark.parametrize("padding", ["", "x" * 2**17])
def test_bodies_of_every_size_are_read_alike(padding: str) -> None:
    """Large ones take another way through the decoder."""
    fields = parse_object(b'{"model":"m","\\u0061":1.0,"padding":"%s"}' % padding.encode())
    assert (read_model(fields), bytes(fields.raw_values["a"])) == ("m", b"1.0")
    assert fields.copy_with("model", "n").body == b'{"model":"n","a":1.0,"padding":"%s"}' % padding.encode()
    for odd in (b'"model":"n"', b'"Model":"n"', b'"\\u006dodel":"n"'):
        with pytest.raises(BadRequest) as caught:
            parse_object(b'{"model":"m",%s,"padding":"%s"}' % (odd, padding.encode()))
        assert caught.value.code == "duplicate_key"


@pytest.mark.parametrize(
    ("body", "copy"),
    [
        (b'{"a": 1.0 , "b":[ ]} ', b'{"a": 1.0 , "b":[ ],"n":{"x":true}}'),
        (b'{ "n" : 0, "a": 1.0 }', b'{"n":{"x":true},"a":1.0}'),
        (b" { } ", b'{"n":{"x":true}}'),
    ],
)
def test_a_copy_with_one_field_keeps_the_values_of_the_others_byte_for_byte(body: bytes, copy: bytes) -> None:
    fields = parse_object(body)
    changed = fields.copy_with("n", {"x": True})
    assert changed.body == copy
    assert dict(changed) == json.loads(copy)
    assert dict(fields) == json.loads(body)


def test_an_object_is_read_like_a_dictionary() -> None:
    fields = parse_object(b'{"a": 1.50, "b": null}')
    assert (fields.get("a"), fields.get("c", 7), len(fields), "c" in fields) == (1.5, 7, 2, False)


def test_setting_one_field_copies_the_others_byte_for_byte() -> None:
    body = b'{ "seed":1.0, "big": 123456789012345678901234567890, "model" : "a", "text": "\\u00e9\\/", "l":[ 1,2 ] }'
    changed = set_field(body, "model", "b")
    assert changed == b'{"seed":1.0,"big":123456789012345678901234567890,"model":"b","text":"\\u00e9\\/","l":[ 1,2 ]}'
    assert set_field(b"{}", "model", "é") == '{"model":"é"}'.encode()
