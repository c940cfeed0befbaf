"""What the cases work with: a section of the transcript, and a running gateway that is asked things."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.transcript import processes, wire
from scripts.transcript.normalise import Normaliser, is_metrics_page
from scripts.transcript.processes import Gateway, Result
from scripts.transcript.upstream import Script, Upstream
from scripts.transcript.wire import Connection, Reply

_LONGEST_SHOWN_REQUEST = 1500
UNRECORDED = "X-Client-Request-Id: not recorded"
"""The header of an exchange that neither the transcript nor its copy of the log shows."""

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_LENGTH = re.compile(r"^(Content-Length: )(\d+)", re.MULTILINE | re.IGNORECASE)


class Section:
    """A part of the transcript, and the folder in which its processes run."""

    def __init__(self, title: str, checkout: Path, version: str, keeps_waits: bool = False) -> None:
        self.checkout = checkout
        self.exchanges = 0
        self._gateway: Gateway | None = None
        self._kept = tempfile.TemporaryDirectory(prefix="transcript-")
        self.folder = Path(self._kept.name) / "work"
        self.folder.mkdir()
        literals = {str(self.folder): "<folder>", str(checkout): "<checkout>", version: "<version>"}
        self.normaliser = Normaliser(literals, keeps_waits)
        self._parts = [f"{'#' * 100}\n# {title}\n{'#' * 100}\n"]

    def text(self) -> str:
        """All that was recorded."""
        return "\n".join(self._parts)

    def close(self) -> None:
        """Remove the folder."""
        self._kept.cleanup()

    def note(self, name: str, text: str) -> None:
        """Something that is neither an exchange nor a command: a file, a log."""
        self._parts.append(f"=== {name}\n{self.normaliser.text(text)}")

    def exchange(self, name: str, sent: bytes, reply: Reply) -> None:
        """A request and the bytes that came back."""
        self.exchanges += 1
        raw = reply.raw.decode("utf-8", "backslashreplace")
        shown = _with_checked_length(raw, self.normaliser.reply(raw))
        ending = "" if reply.ending == "complete" else f"({reply.ending})\n"
        asked = sent if len(sent) <= _LONGEST_SHOWN_REQUEST else sent[:400] + b" ... (%d bytes in all)" % len(sent)
        request = self.normaliser.text(asked.decode("utf-8", "backslashreplace"))
        self._parts.append(f"=== {name}\n{_message('> ', request)}{_message('< ', shown)}{ending}")

    def command(self, name: str, *arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None) -> Result:
        """Runs a command in the folder and records what it prints: a module after ``-m``, else ``token_manager.py``."""
        self.exchanges += 1
        first = [] if arguments[0] == "-m" else [str(self.checkout / "token_manager.py")]
        result = processes.run(self.checkout, self.folder, [*first, *arguments], settings or {}, stdin)
        shown = " ".join(
            ["python", *([] if arguments[0] == "-m" else ["token_manager.py"]), *map(_shell_word, arguments)]
        )
        given = "".join(f"{name}={value}\n" for name, value in (settings or {}).items())
        printed = _quoted("1 ", result.stdout) + _quoted("2 ", result.stderr)
        self._parts.append(
            f"=== {name}\n"
            + self.normaliser.text(f"{_quoted('$ ', given + shown)}{printed}(exit code {result.code})\n")
        )
        return result

    def tell_to_end(self) -> None:
        """SIGTERM for the gateway that is running."""
        if self._gateway is not None:
            self._gateway.tell_to_end()

    @contextmanager
    def serving(self, name: str, settings: Mapping[str, str], upstream: Upstream | None = None) -> Iterator["Session"]:
        """A gateway in the folder; its log is recorded at the end, when its data is written, too."""
        log = self.folder.parent / "log"
        gateway = Gateway(self.checkout, self.folder, {"GATEWAY_LOG_FORMAT": "json", **settings}, log)
        self._gateway = gateway
        self.normaliser.add_literal(f"127.0.0.1:{gateway.port}", "127.0.0.1:<port>")
        try:
            yield Session(self, gateway.port, upstream)
        finally:
            printed = gateway.stop()
        lines = [line for line in printed.splitlines() if UNRECORDED.partition(": ")[2] not in line]
        if settings.get("GATEWAY_WORKERS", "1") != "1":
            # Which worker writes first, and whether both have begun when the end comes, is left to chance.
            lines = sorted(dict.fromkeys(map(self.normaliser.text, lines)), key=_behind_the_time)
        self.note(f"{name}: the log", "\n".join(lines) + "\n")


class Session:
    """A running gateway: each method asks it something and records the answer."""

    def __init__(self, section: Section, port: int, upstream: Upstream | None = None) -> None:
        self.section = section
        self.port = port
        self.upstream = upstream

    def ask(
        self,
        name: str,
        line: str,
        body: bytes | str | dict[str, Any] | None = None,
        *headers: str,
        key: str | None = None,
    ) -> Reply:
        """``line`` is the method and the target: "GET /healthz"."""
        method, _, target = line.partition(" ")
        return self.raw(name, wire.request(method, target, headers, body, key=key))

    def raw(self, name: str, *parts: bytes) -> Reply:
        """Bytes as they are. Several parts go over one connection, each when the one before is answered.

        Returns the last answer.
        """
        reply = Reply(b"", "not asked")
        with self.connect() as connection:
            for number, part in enumerate(parts, 1):
                connection.send(part)
                reply = connection.read_reply(part.partition(b" ")[0].decode("latin-1"))
                place = f" ({number} of {len(parts)} on one connection)" if len(parts) > 1 else ""
                self.section.exchange(name + place, part, reply)
        return reply

    def expecting(self, name: str, head: bytes, body: bytes) -> None:
        """The body is sent when the gateway has told to go on."""
        with self.connect() as connection:
            connection.send(head)
            connection.read_until(b"\r\n\r\n")
            connection.send(body)
            self.section.exchange(name, head + body, connection.read_reply("POST"))

    def behind(
        self,
        name: str,
        script: Script,
        line: str,
        body: bytes | str | dict[str, Any] | None = None,
        *headers: str,
        key: str | None = None,
    ) -> Reply:
        """Like ``ask``; ``script`` is what the upstream answers. What it was sent is recorded, too."""
        if self.upstream is None:
            raise RuntimeError("this gateway has no upstream")
        self.upstream.prepare(script)
        reply = self.ask(name, line, body, *headers, key=key)
        self.record_received()
        return reply

    def record_received(self) -> None:
        """What the upstream was sent since the last time."""
        if self.upstream is not None:
            received = [
                _message("^ ", one.decode("utf-8", "backslashreplace")) for one in self.upstream.take_received()
            ]
            self.section.note("... the upstream received", "--\n".join(received) or "(nothing)\n")

    def unrecorded(self, line: str, body: dict[str, Any] | None = None, key: str | None = None) -> Reply:
        """An exchange that the transcript leaves out, from the log as well: how often it is needed depends on the clock."""
        method, _, target = line.partition(" ")
        with self.connect() as connection:
            connection.send(wire.request(method, target, [UNRECORDED], body, key=key))
            return connection.read_reply(method)

    def connect(self) -> Connection:
        return Connection(self.port, self.upstream.client_has if self.upstream else None)


def _with_checked_length(raw: str, shown: str) -> str:
    """Where a body was changed, its length is that of one run only: whether it is right is checked here instead."""
    head, separator, body = raw.rpartition("\r\n\r\n")
    length = _LENGTH.search(head)
    if length is None or not separator:
        return shown
    size = len(body.encode())
    if size == 0 and is_metrics_page(head):
        told = "<length of the page>"
    elif shown.endswith(separator + body):
        return shown
    else:
        told = "<length of the body>" if int(length[2]) == size else f"{length[2]} for {size} bytes"
    return _LENGTH.sub(rf"\g<1>{told}", shown, count=1)


def _quoted(mark: str, text: str) -> str:
    """Each line behind a mark; what cannot be printed as an escape."""
    if not text:
        return ""
    shown = _UNPRINTABLE.sub(lambda match: "\\r" if match[0] == "\r" else f"\\x{ord(match[0]):02x}", text)
    return "".join(f"{mark}{line}".rstrip(" ") + "\n" for line in shown.split("\n"))


def _message(mark: str, text: str) -> str:
    """A message of HTTP: the line ends of heads are not shown, any other carriage return is."""
    head, separator, body = text.partition("\r\n\r\n")
    shown = head.replace("\r\n", "\n") + ("\n" if separator else "")
    if not separator:
        return _quoted(mark, shown)
    return _quoted(mark, shown) + (_message if body.startswith("HTTP/1.") else _quoted)(mark, body)


def _shell_word(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./*-]+", word) else json.dumps(word)


def _behind_the_time(line: str) -> str:
    """What makes two lines of a log in JSON different, whenever they were written. Lines for people are all alike."""
    return "".join(re.findall(r'"(?:message|method|path|status)":[^,]*', line))
