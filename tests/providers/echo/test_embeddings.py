"""Embeddings without a model: unit vectors that depend on the text alone."""

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.providers.echo.embeddings import DIMENSIONS, MAX_DIMENSIONS, response, unit_vector


@given(st.text(max_size=50), st.integers(1, 64))
def test_vectors_have_the_length_one(text: str, dimensions: int) -> None:
    vector = unit_vector(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-9)


def test_equal_texts_have_equal_vectors_and_others_have_others() -> None:
    assert unit_vector("a", 8) == unit_vector("a", 8) != unit_vector("b", 8)


def test_a_response_has_a_vector_for_each_input_and_counts_words() -> None:
    found = response({"model": "m", "input": ["one two", "three"], "dimensions": 2})
    assert found["data"] == [
        {"object": "embedding", "index": 0, "embedding": unit_vector("one two", 2)},
        {"object": "embedding", "index": 1, "embedding": unit_vector("three", 2)},
    ]
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (found["object"], found["model"]) == ("list", "m")


def test_base64_is_of_little_endian_floats() -> None:
    found = response({"model": "m", "input": "x", "dimensions": 3, "encoding_format": "base64"})
    packed = base64.b64decode(found["data"][0]["embedding"])
    assert struct.unpack("<3f", packed) == pytest.approx(unit_vector("x", 3), abs=1e-6)


@pytest.mark.parametrize(("given_input", "count"), [("x", 1), (["x", "y"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_inputs_are_strings_or_numbers_of_tokens(given_input: object, count: int) -> None:
    data = response({"model": "m", "input": given_input})["data"]
    assert [len(item["embedding"]) for item in data] == [DIMENSIONS] * count


@pytest.mark.parametrize("given_input", [None, [], {}, 5, [1, "a"], [None]])
def test_other_inputs_are_refused(given_input: Any) -> None:
    with pytest.raises(BadRequest, match="must be a string, or a list of strings or of token numbers") as caught:
        response({"model": "m", "input": given_input})
    assert caught.value.param == "input"


@pytest.mark.parametrize("dimensions", [-1, MAX_DIMENSIONS + 1, True, 1.5, "8"])
def test_invalid_dimensions_are_refused(dimensions: Any) -> None:
    with pytest.raises(BadRequest, match=f"whole number from 1 to {MAX_DIMENSIONS}") as caught:
        response({"model": "m", "input": "x", "dimensions": dimensions})
    assert caught.value.param == "dimensions"
