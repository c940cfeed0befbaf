"""What pictures and files in base64 count in a prompt."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.usage.attachments import (
    BYTES_PER_ATTACHED_TOKEN,
    BYTES_PER_TOKEN,
    TOKENS_PER_ATTACHMENT,
    Attachments,
    split_attachments,
)

DATA = b"QUJD" * 600_000
PARTS = st.sampled_from(
    [b"base64,", b'"data"', b'"data" : "', b'"data":"', b"QUJD" * 8, b"QUJD" * 9, b"=", b'"', b" ", b"text"]
)
PATTERN = re.compile(rb'(?:base64,|"data"\s*:\s*")[A-Za-z0-9+/=]{32,}')


@pytest.mark.parametrize("form", [b'{"url":"data:image/png;base64,%s"}', b'{"media_type":"image/png","data": "%s"}'])
def test_an_attachment_counts_by_its_size_and_not_as_text(form: bytes) -> None:
    found = split_attachments(form % DATA)
    assert (found.number, found.text) == (1, form % b"")
    as_text = len(DATA) // BYTES_PER_TOKEN
    assert abs(as_text + found.tokens - len(DATA) // BYTES_PER_ATTACHED_TOKEN) < 10


def test_small_attachments_count_a_picture_each() -> None:
    part = b'{"url":"data:image/png;base64,%s"}' % (b"QUJD" * 20)
    found = split_attachments(part * 3)
    assert found.number == 3
    assert found.tokens > 2.5 * TOKENS_PER_ATTACHMENT


@pytest.mark.parametrize("raw", [b"", b'"base64,"', b'"just a text without any picture, though it says data"'])
def test_text_has_none(raw: bytes) -> None:
    assert split_attachments(raw) == Attachments(raw, 0, 0)


def test_marks_without_data_are_passed_over_quickly() -> None:
    """Each of them would otherwise cost a search through all of the rest."""
    raw = b'{"data":1},' * 100_000
    assert split_attachments(raw) == Attachments(raw, 0, 0)


@example([b"base64,", b"base64,", b"QUJD" * 8])
@given(st.lists(PARTS, max_size=12))
def test_attachments_are_those_of_one_pattern(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    found = list(PATTERN.finditer(raw))
    split = split_attachments(raw)
    assert split.number == len(found)
    marks = sum(len(re.match(rb'base64,|"data"\s*:\s*"', match.group()).group()) for match in found)  # type: ignore[union-attr]
    assert len(split.text) == len(raw) - sum(len(match.group()) for match in found) + marks
