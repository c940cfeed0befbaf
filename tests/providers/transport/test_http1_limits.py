"""The bounds fit each other and the servers that they were chosen for."""

from gateway.providers.transport import http1_limits as limits


def test_a_connection_is_given_up_before_the_servers_in_use_close_it() -> None:
    uvicorn_seconds = 5.0
    assert limits.ASK_SYSTEM_AFTER_SECONDS < limits.KEEP_ALIVE_SECONDS < uvicorn_seconds


def test_one_line_fits_into_a_head() -> None:
    assert limits.MAX_HEADER_BYTES < limits.MAX_HEAD_BYTES
