"""What pictures and files in base64 count in a prompt."""

import pytest

from gateway.usage.attachments import (
    BYTES_PER_ATTACHED_TOKEN,
    BYTES_PER_TOKEN,
    TOKENS_PER_ATTACHMENT,
    count_attachments,
)

DATA = b"QUJD" * 100_000


@pytest.mark.parametrize("form", [b'{"url":"data:image/png;base64,%s"}', b'{"media_type":"image/png","data": "%s"}'])
def test_an_attachment_counts_by_its_size_and_not_as_text(form: bytes) -> None:
    attached, count = count_attachments(form % DATA)
    assert count == 1
    as_text = len(DATA) // BYTES_PER_TOKEN
    assert abs(as_text + attached - len(DATA) // BYTES_PER_ATTACHED_TOKEN) < 10


def test_small_attachments_count_a_picture_each() -> None:
    part = b'{"url":"data:image/png;base64,%s"}' % (b"QUJD" * 20)
    attached, count = count_attachments(part * 3)
    assert count == 3
    assert attached > 2.5 * TOKENS_PER_ATTACHMENT


@pytest.mark.parametrize(
    "raw", [b"", b'"base64,"', b'"just a long text without any picture in it, though it says data"' * 3]
)
def test_text_has_none(raw: bytes) -> None:
    assert count_attachments(raw) == (0, 0)
