"""Heads as bytes that nobody can smuggle a header into."""

import email.utils

import pytest

from gateway.server.response_head import encode_head

V1_0, V1_1 = (1, 0), (1, 1)


def head(status: int = 200, version: tuple[int, int] = V1_1, keeps_alive: bool = True, **headers: str) -> list[str]:
    text = encode_head(status, headers, 5, version=version, keeps_alive=keeps_alive).decode()
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


def test_a_head() -> None:
    status_line, *lines = head(Server="gateway")
    assert status_line == "HTTP/1.1 200 OK"
    assert lines[:2] == ["Server: gateway", "content-length: 5"]
    assert email.utils.parsedate(lines[2].removeprefix("date: "))
    assert len(lines) == 3


@pytest.mark.parametrize("status", [204, 304])
def test_a_head_without_a_body_has_no_length(status: int) -> None:
    assert not any(line.startswith("content-length") for line in head(status))


@pytest.mark.parametrize(
    ("version", "keeps_alive", "expected"),
    [(V1_1, True, []), (V1_1, False, ["close"]), (V1_0, True, ["keep-alive"]), (V1_0, False, ["close"])],
)
def test_whether_the_connection_stays(version: tuple[int, int], keeps_alive: bool, expected: list[str]) -> None:
    lines = head(version=version, keeps_alive=keeps_alive)
    assert [line.removeprefix("connection: ") for line in lines if line.startswith("connection: ")] == expected


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "a\0b", "a\r\n\r\n<html>"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_a_line_end_in_a_header_is_an_error(value: str, where: str) -> None:
    headers = {"x": value} if where == "value" else {value: "x"}
    with pytest.raises(ValueError, match="line end"):
        encode_head(200, headers, 0, version=V1_1, keeps_alive=True)


def test_headers_go_out_in_their_order() -> None:
    assert head(B="2", A="1")[1:3] == ["B: 2", "A: 1"]


def test_an_unknown_status_has_no_reason() -> None:
    assert head(499)[0] == "HTTP/1.1 499 "


def test_text_that_is_not_utf_8_survives() -> None:
    raw = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert b"x: caf\xe9\r\n" in encode_head(200, {"x": raw}, 0, version=V1_0, keeps_alive=True)
