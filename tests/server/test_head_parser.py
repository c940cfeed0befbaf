"""What a client is told of a head that the parser refuses."""

import pytest

from gateway.server.head_parser import parser_error


@pytest.mark.parametrize(
    ("message", "status", "said"),
    [
        ("Too many headers received", 431, "The request has more than the 512 headers that this gateway accepts."),
        ("Duplicate 'Host' header found.", 400, "The request has the header Host twice. Send it once."),
        ("Duplicate '<script>' header found.", 400, "The request is not valid HTTP."),
        ("Invalid header value char: sk-secret", 400, "The request is not valid HTTP."),
        ("", 400, "The request is not valid HTTP."),
    ],
)
def test_only_known_parts_of_the_message_are_passed_on(message: str, status: int, said: str) -> None:
    error = parser_error(message, 1024)
    assert (error.status, error.message) == (status, said)
