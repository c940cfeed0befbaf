"""The load of plain requests: wrk, one thread, kept-alive connections, figures from its `done` hook."""

import http.client
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Server

PATH = "/v1/chat/completions"
MARK = "BENCH "

# No `response` hook: it would see every answer, but costs as much as the load itself.
SCRIPT = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{mark}{{"requests": %d, "microseconds": %d, "p50_us": %d, "p99_us": %d, ' ..
    '"errors": {{"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}}}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect, e.read, e.write, e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    program: str
    connections: int
    script: Path


@dataclass(frozen=True)
class Outcome:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def write_script(folder: Path, token: str, body: str) -> Path:
    script = folder / f"load-{len(body)}.lua"
    script.write_text(SCRIPT.format(body=body, token=token, mark=MARK))
    return script


def run(load: Load, server: Server, seconds: int) -> Outcome:
    arguments = [load.program, "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "30s"]
    arguments += ["-s", str(load.script), server.url + PATH]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise BenchError(f"wrk against {server.name} ended with code {done.returncode}:\n{done.stderr}")
    return parse(done.stdout, server.name)


def parse(output: str, name: str) -> Outcome:
    lines = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise BenchError(f"wrk against {name} printed no result:\n{output}")
    result = json.loads(lines[0])
    failed = {kind: count for kind, count in result["errors"].items() if count}
    if failed or "Non-2xx" in output or not result["requests"]:
        raise BenchError(f"{name} did not answer every request with 2xx; errors: {failed}\n{output}")
    return Outcome(
        requests=result["requests"],
        seconds=result["microseconds"] / 1e6,
        p50_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
    )


def check_answer(server: Server, token: str, question: str, expected: str) -> None:
    """One request by hand: a fast wrong answer (a redirect, an empty body) must not count as speed.

    Raises BenchError for it.
    """
    status, body = ask(server, token, question)
    if status != 200 or decoded(body) != json.loads(expected):
        raise BenchError(f"{server.name} answered {status} and not what upstream says: {body[:500]!r}")


def refuses_wrong_key(server: Server, token: str, question: str) -> bool:
    """Returns whether a wrong key is refused: a server that answers it does less than the others."""
    return ask(server, f"{token[:-1]}-", question)[0] == 401


def ask(server: Server, token: str, question: str) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", server.command.port, timeout=30)
    try:
        connection.request("POST", PATH, question.encode(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
