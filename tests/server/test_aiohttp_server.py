"""The bytes of a whole answer's head, and the guard against headers that end early."""

import pytest

from gateway.server.aiohttp_server import encode_head, require_c_parser


def head(
    headers: dict[str, str], status: int = 200, *, version: tuple[int, int] = (1, 1), keeps_alive: bool = True
) -> str:
    return encode_head(status, headers, 5, version=version, keeps_alive=keeps_alive).decode()


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\r\n\r\n<script>", "\n", "\r", "a\0b"]
)
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_header_cannot_smuggle_in_another_one(value: str, place: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        head({value: "x"} if place == "name" else {"x": value})


def test_headers_go_out_in_their_order() -> None:
    lines = head({"B": "2", "A": "1"}).split("\r\n")
    assert lines[:4] == ["HTTP/1.1 200 OK", "B: 2", "A: 1", "content-length: 5"]
    assert lines[4].startswith("date: ")
    assert lines[5:] == ["", ""]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    assert "content-length" not in head({}, status)


def test_an_unknown_status_has_no_reason() -> None:
    assert head({}, 499).startswith("HTTP/1.1 499 \r\n")


@pytest.mark.parametrize(
    ("version", "keeps_alive", "expected"),
    [((1, 1), True, ""), ((1, 1), False, "close"), ((1, 0), True, "keep-alive"), ((1, 0), False, "close")],
)
def test_the_connection_header_says_what_the_version_does_not(
    version: tuple[int, int], keeps_alive: bool, expected: str
) -> None:
    text = head({}, version=version, keeps_alive=keeps_alive)
    assert (f"connection: {expected}" in text) if expected else "connection:" not in text


def test_text_that_is_no_utf_8_survives() -> None:
    raw = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"x: caf\xe9\r\n" in encode_head(200, {"x": raw}, 0, version=(1, 1), keeps_alive=True)


def test_the_c_parser_is_there() -> None:
    require_c_parser()
