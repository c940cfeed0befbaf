"""Log lines: JSON for machines, short lines for people, and no secret in either.

Access lines are put together by ``http/observe`` and come in ready; they are written in batches, because a write for each
request would be the dearest thing that a request does here.
"""

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from gateway.masking import Masker

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """One line a record; what was passed as ``extra`` is kept as fields."""

    def __init__(self, masker: Masker, as_json: bool) -> None:
        super().__init__()
        self._masker = masker
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = _json_line(record, fields) if self._as_json else _console_line(record, fields)
        return self._masker(line)


def _json_line(record: logging.LogRecord, fields: Mapping[str, Any]) -> str:
    head = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    return msgspec.json.encode({**head, **fields}, enc_hook=str).decode()


def _console_line(record: logging.LogRecord, fields: Mapping[str, Any]) -> str:
    trace = fields.get("exception")
    rest = " ".join(f"{key}={value}" for key, value in fields.items() if key != "exception")
    time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
    line = f"{time} {record.levelname.lower():7} {record.getMessage()} {rest}".rstrip()
    return f"{line}\n{trace}" if trace else line


def configure(log_format: str, level: str, secrets: Iterable[str], stream: TextIO = sys.stderr) -> None:
    """Set up logging for a process: everything to ``stream``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(Masker(secrets), wants_json(log_format, stream)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # aiohttp's own access log would print the query string.
    logging.getLogger("aiohttp.access").disabled = True


def wants_json(log_format: str, stream: TextIO) -> bool:
    return log_format == "json" or (log_format == "auto" and not stream.isatty())


class BatchedLines:
    """Lines to a stream: all that one turn of the event loop produced go out in one write."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        text = "\n".join(self._lines)
        self._lines.clear()
        if text:
            self._stream.write(f"{text}\n")
            self._stream.flush()
