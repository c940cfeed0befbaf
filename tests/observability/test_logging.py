"""Log lines: one a record, readable by their reader, and never with a secret."""

import asyncio
import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from gateway.core.escaping import is_shown
from gateway.observability import logging as log
from gateway.observability.logging import LineFormatter, LogWriter
from gateway.observability.redaction import Redactor
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
    return LineFormatter(Redactor([FOREIGN]), as_json).format(made)


def test_a_json_line_has_its_fields() -> None:
    fields = json.loads(line(True, "took %d ms", 5, token="tok_1", odd=Terminal))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "level": "info",
        "logger": "test",
        "message": "took 5 ms",
        "token": "tok_1",
        "odd": str(Terminal),
    }


def test_a_console_has_utc_as_json_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        shown, at = line(False, "x")[:8], json.loads(line(True, "x"))["time"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert shown[:5] in (at[11:16], (datetime.fromisoformat(at) - timedelta(minutes=1)).isoformat()[11:16])


def test_a_console_line_is_short() -> None:
    assert line(False, "took %d ms", 5, route="x")[9:] == "info    took 5 ms route=x"


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_is_kept_and_its_secret_redacted(as_json: bool) -> None:
    try:
        raise ValueError(f"Bearer {KEY}")
    except ValueError:
        made = logging.makeLogRecord({"msg": "unhandled exception", "exc_info": sys.exc_info()})
    text = LineFormatter(Redactor(), as_json).format(made)
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


async def test_lines_of_a_moment_go_out_in_one_write() -> None:
    stream = io.StringIO()
    lines = LogWriter(stream)
    lines.write("one")
    lines.write("two")
    assert stream.getvalue() == ""
    async with asyncio.timeout(5):
        while not stream.getvalue():
            await asyncio.sleep(0.001)
    assert stream.getvalue() == "one\ntwo\n"
    lines.flush()
    assert stream.getvalue() == "one\ntwo\n"


def _full_pipe() -> tuple[int, io.TextIOWrapper]:
    """A pipe that nobody has read from yet, and that takes no more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, os.fdopen(writing, "w")


async def test_a_pipe_that_nobody_reads_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were this to block, the test would never end: nor would a request."""
    monkeypatch.setattr(log, "MAX_WAITING_BYTES", 100)
    reading, stream = _full_pipe()
    lines = LogWriter(stream)
    for number in range(20):
        lines.write(f"line {number:04}")
    lines.flush()
    os.read(reading, 2**20)
    lines.flush()
    lines.flush()
    said = os.read(reading, 2**20).decode()
    assert said.startswith("line 0000\nline 0001\n")
    assert said.endswith('"message":"lines dropped","count":10}\n')
    os.close(reading)
    lines.write("nobody is there any more")
    lines.flush()
    stream.close()


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Lets threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_lines_of_threads_and_of_the_loop_are_each_written_once(restless_threads: None) -> None:
    stream = io.StringIO()
    lines = LogWriter(stream)

    def write(name: str) -> None:
        for number in range(2000):
            lines.write(f"{name} {number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for number in range(2000):
        lines.write(f"loop {number}")
        if number % 50 == 0:
            lines.flush()
            await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    lines.flush()
    expected = [f"{name} {number}" for name in ("a", "b", "loop") for number in range(2000)]
    assert sorted(stream.getvalue().splitlines()) == sorted(expected)


def test_outside_of_a_loop_lines_go_out_at_once() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    LogWriter(stream).write("one")
    assert os.read(reading, 100) == b"one\n"
    os.close(reading)
    stream.close()


async def test_the_last_lines_of_a_process_are_written_at_once() -> None:
    stream = io.StringIO()
    lines = LogWriter(stream)
    lines.write("last words")
    lines.close()
    assert stream.getvalue() == "last words\n"


@pytest.mark.usefixtures("_root_logger")
async def test_ending_the_logging_writes_what_waits() -> None:
    stream = io.StringIO()
    log.configure("json", "info", [], stream)
    logging.getLogger("any").info("seen")
    assert stream.getvalue() == ""
    logging.getLogger().handlers[0].flush()
    assert json.loads(stream.getvalue())["message"] == "seen"


@pytest.mark.usefixtures("_root_logger")
async def test_a_warning_is_written_before_anything_else_happens() -> None:
    """Whoever sees a failed response finds its reason in the log."""
    stream = io.StringIO()
    log.configure("json", "info", (), stream)
    logging.getLogger("gateway").info("later")
    assert stream.getvalue() == ""
    logging.getLogger("gateway").warning("now")
    assert [json.loads(text)["message"] for text in stream.getvalue().splitlines()] == ["later", "now"]


def test_a_process_without_a_stream_logs_nothing() -> None:
    LogWriter(None).write("nobody reads this")


ACTING = "\x1b]0;t\x07\x9b31m\u202e\u2028\x7f"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_shows_nothing_that_acts_on_a_terminal(as_json: bool) -> None:
    shown = line(as_json, "model %s", ACTING, extra=ACTING)
    assert all(map(is_shown, shown))
    if as_json:
        assert json.loads(shown)["extra"] == ACTING


def test_the_text_of_an_exception_cannot_look_like_another_line() -> None:
    try:
        raise ValueError("x\n12:00:00 info    token created\x1b[31m")
    except ValueError:
        made = logging.getLogger("test").makeRecord("test", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    first, *rest = LineFormatter(Redactor([]), False).format(made).split("\n")
    assert first.endswith("failed")
    assert all(one.startswith("    ") for one in rest)
    assert "\x1b" not in "".join(rest)


def test_a_writer_escapes_what_a_line_still_contains() -> None:
    stream = io.StringIO()
    LogWriter(stream).write('{"model":"\x9b31m é"}')
    assert stream.getvalue() == '{"model":"\\u009b31m é"}\n'
