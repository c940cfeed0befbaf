"""Log lines: JSON for machines or short lines for people, with secrets redacted.

Lines of the access log come ready from ``http/middleware/access_log``. All lines are written by a ``LogWriter``, which never
blocks the event loop: a pipe that nobody reads would otherwise stop every request.
"""

import asyncio
import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from gateway.core.escaping import for_display, for_json
from gateway.observability.redaction import Redactor

MAX_WAITING_BYTES = 4 * 1024 * 1024
_RETRY_SECONDS = 0.05
_BATCH_SECONDS = 0.02
"""How long a line may wait for others, to be written with them: a write takes longer than anything else in the log."""
_LAST_WAIT_MILLISECONDS = 200
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Formats a record as one line. What was passed as ``extra`` becomes fields."""

    def __init__(self, redactor: Redactor, as_json: bool) -> None:
        super().__init__()
        self._redactor = redactor
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line without its end. On a console, the traceback of an exception follows it, indented."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = _json_line(record, fields) if self._as_json else _console_line(record, fields)
        return self._redactor(line)


def _json_line(record: logging.LogRecord, fields: Mapping[str, Any]) -> str:
    head = {
        "time": _time(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    return for_json(msgspec.json.encode({**head, **fields}, enc_hook=str)).decode()


def _time(seconds: float) -> str:
    """Returns the form that the access log has, too: ``2026-01-31T10:30:00.123Z``; a console shows the middle of it.

    ``seconds`` since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _console_line(record: logging.LogRecord, fields: Mapping[str, Any]) -> str:
    trace = fields.get("exception")
    rest = " ".join(f"{key}={value}" for key, value in fields.items() if key != "exception")
    lines = [f"{_time(record.created)[11:19]} {record.levelname.lower():7} {record.getMessage()} {rest}".rstrip()]
    # Indented, because the text of an exception may contain what looks like the next line of the log.
    lines += [f"    {line}" for line in trace.split("\n")] if trace else []
    return "\n".join(map(for_display, lines))


class LogWriter:
    """Writes lines to a stream: those of 20 milliseconds in one write.

    A pipe is polled first; what it does not accept waits, up to ``MAX_WAITING_BYTES``. Further lines are dropped and counted, and
    the count is written as soon as the pipe accepts something.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """``stream`` is None for a process that was started without a standard error."""
        self._stream = stream
        self._pipe = _pipe_of(stream) if stream else None
        self._waiting = bytearray()
        self._adding = threading.Lock()
        """Threads write lines, too: what waits is only changed while this is locked."""
        self._sending = threading.Lock()
        self._dropped = 0
        self._is_scheduled = False

    def write(self, line: str) -> None:
        """Writes a line, which comes without its end, soon; outside of an event loop at once."""
        self.write_bytes(line.encode("utf-8", "backslashreplace"))

    def write_bytes(self, line: bytes) -> None:
        """Writes a line of UTF-8, which comes without its end, soon. It is escaped already, or JSON."""
        if not line.isascii():
            line = for_json(line)
        with self._adding:
            if len(self._waiting) + len(line) >= MAX_WAITING_BYTES:
                self._dropped += 1
            else:
                self._waiting += line
                self._waiting += b"\n"
        if not self._is_scheduled:
            self._schedule()

    def flush(self) -> None:
        """Writes what can be written without waiting."""
        self._is_scheduled = False
        if self._dropped and not self._waiting:
            form = b'{"time":"%s","level":"error","logger":"log","message":"lines dropped","count":%d}\n'
            with self._adding:
                self._waiting += form % (_time(time.time()).encode(), self._dropped)
                self._dropped = 0
        self._send(0)
        if self._waiting or self._dropped:
            self._schedule(_RETRY_SECONDS)

    def close(self) -> None:
        """Writes the last lines of a process, and gives their reader a moment to take them."""
        self._send(_LAST_WAIT_MILLISECONDS)

    def _schedule(self, seconds: float = _BATCH_SECONDS) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._send(_LAST_WAIT_MILLISECONDS)  # without an event loop, or in a thread, waiting is no harm
            return
        self._is_scheduled = True
        loop.call_later(seconds, self.flush)

    def _send(self, wait_milliseconds: int) -> None:
        """Writes what waits. Whoever may not wait leaves it to a thread that is writing, and tries again later."""
        if not self._sending.acquire(blocking=wait_milliseconds > 0):
            return
        try:
            if self._pipe is None:
                self._send_all()
            else:
                self._send_to_pipe(self._pipe, wait_milliseconds)
        except (OSError, ValueError):
            # The reader has closed the stream. Requests go on without a log, and there is no place left to report that.
            with self._adding:
                self._waiting.clear()
        finally:
            self._sending.release()

    def _send_all(self) -> None:
        with self._adding:
            text, self._waiting = bytes(self._waiting), bytearray()
        if self._stream is not None:
            self._stream.write(text.decode())
            self._stream.flush()

    def _send_to_pipe(self, pipe: "_Pipe", wait_milliseconds: int) -> None:
        while self._waiting and pipe.takes_more(wait_milliseconds):
            with self._adding:
                piece = pipe.next_piece(self._waiting)
            sent = pipe.send(piece)
            with self._adding:
                del self._waiting[:sent]


class _Pipe:
    """A descriptor that may not accept more data."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def takes_more(self, wait_milliseconds: int) -> bool:
        """Returns whether the descriptor accepts data, at the latest after this time."""
        return bool(self._poll.poll(wait_milliseconds))

    def next_piece(self, data: bytearray) -> bytes:
        """Returns some of the data: no more than a ready pipe accepts at once and in one piece."""
        end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1
        return bytes(data[: end or select.PIPE_BUF])

    def send(self, piece: bytes) -> int:
        """Writes a piece, and returns how much of it was written."""
        return os.write(self._descriptor, piece)


def _pipe_of(stream: TextIO) -> _Pipe | None:
    """Returns the pipe behind a stream; None for a file, which always accepts data, and for a stream in memory."""
    try:
        descriptor = stream.fileno()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, io.UnsupportedOperation):
        return None
    return None if is_file else _Pipe(descriptor)


class _Handler(logging.Handler):
    """Writes the records of Python's logging with the same writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record; a warning at once, before a client sees what it is about."""
        self._writer.write(self.format(record))
        if record.levelno >= logging.WARNING:
            self._writer.flush()

    def flush(self) -> None:
        """Writes what waits; the standard library calls it when the process ends."""
        self._writer.close()


def configure(log_format: str, level: str, secrets: Iterable[str], stream: TextIO | None = sys.stderr) -> None:
    """Sets up logging for a process: everything goes to ``stream``.

    ``log_format`` is json, console or auto; ``secrets`` are redacted whatever they look like.
    """
    writer = LogWriter(stream)
    handler = _Handler(writer)
    handler.setFormatter(LineFormatter(Redactor(secrets), wants_json(log_format, stream)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiohttp's own access log would print the query string.
    logging.getLogger("aiohttp.access").disabled = True


def wants_json(log_format: str, stream: TextIO | None) -> bool:
    """Returns whether lines are JSON: with auto, if the stream is not a terminal."""
    return log_format == "json" or (log_format == "auto" and not (stream and stream.isatty()))
