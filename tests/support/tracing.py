"""Traces requests through the package: which files a request visits, and how often it moves between them.

``python -m tests.support.tracing`` prints the table that the documentation quotes; ``--files`` adds the visits of each file.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import gateway
from tests.support.gateway import JSON, KEY, running_gateway
from tests.support.reply import Reply
from tests.support.upstream import Connection, Received, running_upstream
from tests.support.wire import request, talk

PACKAGE = Path(gateway.__file__).parent
LIMITS = {"rpm": 100, "tpm": 100_000, "max_parallel": 5, "budget": "1/day"}
PRICES = '[prices."m"]\ninput = 1\noutput = 1\n'
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@dataclass
class Trace:
    """What one request did in the package.

    ``calls`` counts entries into functions. A coroutine that continues after it has waited counts again, because a reader
    goes through its frames again, too. ``depth`` is 0 in a function that nothing of the package has called.
    """

    visits: list[str] = field(default_factory=list)
    """Files in the order in which they execute, relative to the package; never the same one twice in a row."""
    functions: set[CodeType] = field(default_factory=set)
    calls: int = 0
    depth: int = 0

    @property
    def files(self) -> set[str]:
        return set(self.visits)

    @property
    def moves(self) -> int:
        """Changes of the executing file, by calls and by returns, with the way into the first file and out of the last."""
        return len(self.visits) + 1 if self.visits else 0


class Tracer:
    """A profile function for ``sys.setprofile`` that watches the tasks that start after it was made.

    The connection and its handler run in such tasks. The background tasks of the gateway and the task of the caller are
    older, and therefore not part of the trace. Must be made inside a running event loop.
    """

    def __init__(self, package: Path) -> None:
        self.trace = Trace()
        self._prefix = f"{package}/"
        self._loop = asyncio.get_running_loop()
        self._older_tasks = asyncio.all_tasks()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event not in ("call", "return") or not self._is_ours(frame):
            return
        task = asyncio.current_task(self._loop)
        if task is None or task in self._older_tasks:
            return
        stack = list(self._stack(frame))
        if event == "call":
            self._enter(stack)
        elif len(stack) > 1:
            self._visit(stack[1])

    def _enter(self, stack: list[FrameType]) -> None:
        self.trace.calls += 1
        self.trace.functions.add(stack[0].f_code)
        self.trace.depth = max(self.trace.depth, len(stack) - 1)
        self._visit(stack[0])

    def _visit(self, frame: FrameType) -> None:
        file = frame.f_code.co_filename.removeprefix(self._prefix)
        if self.trace.visits[-1:] != [file]:
            self.trace.visits.append(file)

    def _stack(self, frame: FrameType | None) -> Iterator[FrameType]:
        """Yields the frames of the package, innermost first."""
        while frame is not None:
            if self._is_ours(frame):
                yield frame
            frame = frame.f_back

    def _is_ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._prefix)


@contextmanager
def tracing(package: Path = PACKAGE) -> Iterator[Trace]:
    """Traces the tasks that start inside the block. Work for threads runs inline, so that it is part of the trace."""
    tracer = Tracer(package)
    submit = ThreadPoolExecutor.submit
    ThreadPoolExecutor.submit = _run_inline  # type: ignore[method-assign,assignment]
    sys.setprofile(tracer)
    try:
        yield tracer.trace
    finally:
        sys.setprofile(None)
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]


def _run_inline(_executor: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
    """Stands for ``ThreadPoolExecutor.submit``. An exception goes to whoever waits, as a thread's does."""
    done: Future[Any] = Future()
    try:
        done.set_result(work(*args, **kwargs))
    except Exception as error:
        done.set_exception(error)
    return done


async def trace_request(port: int, data: bytes, status: int) -> Trace:
    """Traces the second of two equal requests, each on a connection of its own. The first one fills the caches."""
    check_status(await talk(port, data), status)
    with tracing() as trace:
        reply = await talk(port, data)
    check_status(reply, status)
    return trace


def check_status(reply: Reply, status: int) -> None:
    """Raises AssertionError: the trace of a request that failed says nothing."""
    assert (reply.status, reply.whole) == (status, True), reply


async def answer_chat(received: Received, connection: Connection) -> None:
    """Answers a chat request like OpenAI: as JSON, or as a stream of five events.

    All bytes of a stream go out at once, so that their number of pieces, and with it the trace, is the same each time.
    """
    if not json.loads(received.body).get("stream"):
        content = {"id": "c", "object": "chat.completion", "model": "m", "choices": [], "usage": USAGE}
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        await connection.send(head + body)
        return
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    await connection.send(head + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in _events()) + b"0\r\n\r\n")


def _events() -> Iterator[bytes]:
    """Yields four events with text, one with the usage, and the mark of the end."""
    common = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    text = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    for event in [text] * 4 + [{"choices": [], "usage": USAGE}]:
        yield b"data: %s\n\n" % json.dumps({**common, **event}).encode()
    yield b"data: [DONE]\n\n"


async def trace_requests(folder: Path) -> dict[str, Trace]:
    """Returns the traces of four requests by their names."""
    async with running_gateway(folder, FREEGPT_API_KEY=KEY) as running:
        free = await _new_token(running.port, {"name": "free"})
        limited = await _new_token(running.port, {"name": "limited", "limits": LIMITS})
        creation = await trace_request(running.port, _creation({"name": "new", "limits": LIMITS}), 201)
    return {**await _trace_chats(folder, free, limited), "token creation": creation}


async def _trace_chats(folder: Path, free: str, limited: str) -> dict[str, Trace]:
    """Traces chats on memory counters before a real upstream."""
    config = folder / "gateway.toml"
    config.write_text(PRICES)
    async with (
        running_upstream(answer_chat) as upstream,
        running_gateway(folder, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_CONFIG=str(config)) as running,
    ):
        return {
            "chat": await trace_request(running.port, _chat(free), 200),
            "limited chat": await trace_request(running.port, _chat(limited), 200),
            "limited chat, streamed": await trace_request(running.port, _chat(limited, stream=True), 200),
        }


def _chat(secret: str, **fields: Any) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}], **fields}
    return _post("/v1/chat/completions", secret, body)


def _creation(fields: Mapping[str, Any]) -> bytes:
    return _post("/api/tokens", KEY, fields)


def _post(target: str, secret: str, body: Mapping[str, Any]) -> bytes:
    return request("POST", target, [JSON, ("Authorization", f"Bearer {secret}")], json.dumps(body).encode())


async def _new_token(port: int, fields: Mapping[str, Any]) -> str:
    reply = await talk(port, _creation(fields))
    check_status(reply, 201)
    return str(reply.json()["token"])


def table(traces: Mapping[str, Trace]) -> str:
    """Returns the figures of these traces, one line each."""
    lines = [f"{'request':<24}{'files':>7}{'functions':>11}{'calls':>7}{'moves':>7}{'depth':>7}"]
    for name, trace in traces.items():
        counts = f"{len(trace.files):>7}{len(trace.functions):>11}{trace.calls:>7}{trace.moves:>7}{trace.depth:>7}"
        lines.append(f"{name:<24}{counts}")
    return "\n".join(lines)


def visits_table(traces: Mapping[str, Trace]) -> str:
    """Returns how often each request visits each file, most visited first."""
    return "\n".join(
        f"\n{name}\n" + "\n".join(f"{count:>5}  {file}" for file, count in Counter(trace.visits).most_common())
        for name, trace in traces.items()
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.tracing", description=__doc__)
    parser.add_argument("--files", action="store_true", help="also print how often each file is visited")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        traces = asyncio.run(trace_requests(Path(folder)))
    print(table(traces))
    if arguments.files:
        print(visits_table(traces))


if __name__ == "__main__":
    main()
