"""Log lines: one a record, readable by their reader, and never with a secret."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from gateway import log
from gateway.log import BatchedLines, LineFormatter
from gateway.masking import Masker
from tests.support.tokens import KEY

FOREIGN = 'hunter2"and\\more-of-it-here'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("aiohttp.access").disabled = False


def line(as_json: bool, message: str, *arguments: object, **extra: object) -> str:
    made = logging.getLogger("test").makeRecord("test", logging.INFO, "f", 1, message, arguments, None, extra=extra)
    return LineFormatter(Masker([FOREIGN]), as_json).format(made)


def test_a_json_line_has_its_fields() -> None:
    fields = json.loads(line(True, "took %d ms", 5, token="tok_1", odd=Terminal))
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "info",
        "logger": "test",
        "message": "took 5 ms",
        "token": "tok_1",
        "odd": str(Terminal),
    }


def test_a_console_line_is_short() -> None:
    assert line(False, "took %d ms", 5, route="x")[9:] == "info    took 5 ms route=x"


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_is_kept_and_its_secret_masked(as_json: bool) -> None:
    try:
        raise ValueError(f"Bearer {KEY}")
    except ValueError:
        made = logging.makeLogRecord({"msg": "a bug", "exc_info": sys.exc_info()})
    text = LineFormatter(Masker(), as_json).format(made)
    assert "Traceback" in text
    assert KEY[10:] not in text
    assert not as_json or "\n" not in text


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", [KEY, f"?token={KEY}", f"Bearer {KEY}"])
def test_no_secret_in_message_or_field(as_json: bool, text: str) -> None:
    assert KEY[10:40] not in line(as_json, text, field=text, deep={"a": [text]})


@pytest.mark.parametrize("as_json", [True, False])
def test_no_configured_secret_even_where_json_writes_it_differently(as_json: bool) -> None:
    shown = line(as_json, f"the key {FOREIGN} was refused")
    assert "more-of-it" not in shown


@pytest.mark.usefixtures("_root_logger")
@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("console", False), ("auto", True)])
def test_everything_goes_to_one_stream(log_format: str, is_json: bool) -> None:
    stream = io.StringIO()
    log.configure(log_format, "warning", [FOREIGN], stream)
    logging.getLogger("any").warning("seen")
    logging.getLogger("any").info("not seen")
    (only,) = stream.getvalue().splitlines()
    assert only.startswith("{") == is_json
    assert logging.getLogger("aiohttp.access").disabled, "it would print the query"


def test_auto_means_json_but_on_a_terminal() -> None:
    assert log.wants_json("auto", io.StringIO())
    assert not log.wants_json("auto", Terminal())
    assert log.wants_json("json", Terminal())


async def test_lines_of_one_turn_go_out_in_one_write() -> None:
    stream = io.StringIO()
    lines = BatchedLines(stream)
    lines.write("one")
    lines.write("two")
    assert stream.getvalue() == ""
    await asyncio.sleep(0)
    assert stream.getvalue() == "one\ntwo\n"
    lines.flush()
    assert stream.getvalue() == "one\ntwo\n"
