"""The limits of heads fit what clients send."""

from gateway.server.head_limits import MAX_HEAD_BYTES, MAX_HEADERS


def test_a_head_may_have_large_cookies_and_many_headers() -> None:
    assert MAX_HEAD_BYTES >= 32 * 1024
    assert MAX_HEADERS >= 200
