"""The gateway as a process: signals, several workers, ports and configurations that do not fit."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from tests.support.gateway import KEY, Process, environment, gateway_process, pause, token_manager
from tests.support.server import SlowUpstream, slow_upstream

AUTH = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
STREAM = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}'


def until(holds: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``holds`` answers once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        pause()
    return found


@contextlib.contextmanager
def connect(gateway: Process) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=8)) as connection:
        yield connection


def get_once(gateway: Process, path: str) -> tuple[int, Any]:
    with connect(gateway) as connection:
        return get(connection, path)


def get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@contextlib.contextmanager
def streaming(
    folder: Path, key: str | None = KEY, **values: str
) -> Iterator[tuple[Process, SlowUpstream, http.client.HTTPResponse]]:
    """A gateway with a stream that has begun and goes on when the upstream is told to."""
    with (
        slow_upstream() as upstream,
        gateway_process(
            folder, **({"FREEGPT_API_KEY": key} if key else {}), GATEWAY_UPSTREAM_URL=upstream.url, **values
        ) as gateway,
        contextlib.ExitStack() as opened,
    ):
        connection = opened.enter_context(connect(gateway))
        connection.request("POST", "/v1/chat/completions", STREAM, AUTH)
        response = opened.enter_context(connection.getresponse())
        assert response.status == 200
        assert response.readline().startswith(b"data: ")
        yield gateway, upstream, response


def is_draining(gateway: Process) -> bool:
    return '"message":"draining"' in gateway.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_lets_running_streams_end(tmp_path: Path, workers: str) -> None:
    with streaming(tmp_path, GATEWAY_WORKERS=workers) as (gateway, upstream, response):
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(gateway))
        assert gateway.popen.poll() is None
        upstream.finish()
        assert response.read().endswith(b"data: [DONE]\n\n")
        assert gateway.popen.wait(15) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_new_connections_are_refused_while_draining(tmp_path: Path, workers: int) -> None:
    with streaming(tmp_path, GATEWAY_WORKERS=str(workers)) as (gateway, upstream, response):
        gateway.popen.send_signal(signal.SIGTERM)
        # One worker may have ended already, because it has no request.
        until(lambda: gateway.log.read_text().count('"message":"draining"') == workers)
        with pytest.raises(ConnectionRefusedError), connect(gateway) as connection:
            connection.connect()
        upstream.finish()
        response.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_balancers_have_time_to_look_away(tmp_path: Path, workers: str) -> None:
    """New connections are served until the delay is over, and told that there should be no more of them."""
    values = {"GATEWAY_DRAIN_DELAY": "60", "GATEWAY_WORKERS": workers}
    with gateway_process(tmp_path, FREEGPT_API_KEY=KEY, **values) as gateway:
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: get_once(gateway, "/readyz") == (503, {"status": "not ready", "problem": "draining"}))
        with connect(gateway) as connection:
            assert get(connection, "/v1/models", AUTH)[0] == 200
        gateway.popen.send_signal(signal.SIGTERM)
        assert gateway.popen.wait(15) == 0


def test_kept_connections_see_the_drain(tmp_path: Path) -> None:
    """A load balancer asks on a connection that it keeps: it must hear 503, not see the line go dead."""
    with streaming(tmp_path) as (gateway, upstream, response), connect(gateway) as kept:
        assert get(kept, "/readyz")[0] == 200
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(gateway))
        status, body = get(kept, "/readyz")
        assert (status, body["problem"]) == (503, "draining")
        upstream.finish()
        response.read()


def test_requests_on_kept_connections_are_told_of_the_drain(tmp_path: Path) -> None:
    with streaming(tmp_path) as (gateway, upstream, response), connect(gateway) as kept:
        assert get(kept, "/healthz")[0] == 200
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(gateway))
        status, body = get(kept, "/v1/models", AUTH)
        assert (status, body["error"]["code"]) == (503, "draining")
        upstream.finish()
        response.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_the_drain_streams_are_cut(tmp_path: Path, workers: str) -> None:
    with streaming(tmp_path, GATEWAY_DRAIN_SECONDS="0.2", GATEWAY_WORKERS=workers) as (gateway, _, response):
        gateway.popen.send_signal(signal.SIGTERM)
        check_cut(response)
        assert gateway.popen.wait(15) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_at_once(tmp_path: Path, workers: str) -> None:
    with streaming(tmp_path, GATEWAY_DRAIN_SECONDS="60", GATEWAY_WORKERS=workers) as (gateway, _, response):
        gateway.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(gateway))
        gateway.popen.send_signal(signal.SIGTERM)
        check_cut(response)
        assert gateway.popen.wait(15) == 0


def check_cut(response: http.client.HTTPResponse) -> None:
    """The last event says why, and the chunks have no proper end."""
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert b'"code":"draining"' in caught.value.partial
    assert b"[DONE]" not in caught.value.partial


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_lets_running_streams_end(tmp_path: Path, workers: str) -> None:
    """A terminal sends SIGINT to every process of the group: to the workers directly, and to their supervisor."""
    with streaming(tmp_path, GATEWAY_WORKERS=workers) as (gateway, upstream, response):
        for pid in [gateway.popen.pid, *children(gateway.popen.pid)]:
            os.kill(pid, signal.SIGINT)
        until(lambda: is_draining(gateway))
        upstream.finish()
        assert response.read().endswith(b"data: [DONE]\n\n")
        assert gateway.popen.wait(15) == 0


def test_last_used_is_written_at_the_end(tmp_path: Path) -> None:
    made = json.loads(token_manager(tmp_path, "create", "app", "--json").stdout)
    with gateway_process(tmp_path) as gateway:
        with connect(gateway) as connection:
            for _ in range(3):
                assert get(connection, "/v1/models", {"api-key": made["token"]})[0] == 200
        assert gateway.stop() == 0
    record = json.loads((tmp_path / "api_tokens.json").read_text())["tokens"][0]
    assert record["usage_count"] == 3
    assert record["last_used"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with gateway_process(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_WORKERS="2") as gateway:
        before = until(lambda: len(found := children(gateway.popen.pid)) == 2 and found)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: not is_alive(before[0]))
        for _ in range(20):  # the other one serves meanwhile
            assert get_once(gateway, "/healthz")[0] == 200
        after = until(lambda: len(found := children(gateway.popen.pid)) == 2 and before[0] not in found and found)
        assert before[1] in after
        until(lambda: all(listens_to_sigterm(pid) for pid in after))
        assert gateway.stop() == 0


def listens_to_sigterm(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_stop_while_a_worker_starts_is_a_good_end(tmp_path: Path) -> None:
    with gateway_process(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_WORKERS="2") as gateway:
        before = until(lambda: len(found := children(gateway.popen.pid)) == 2 and found)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: any(pid not in before for pid in children(gateway.popen.pid)))
        assert gateway.stop() == 0


def test_enforcement_outlasts_a_workers_restart(tmp_path: Path) -> None:
    """The file is gone, the worker is new and has never seen a token: it must not come up open."""
    token_manager(tmp_path, "create", "app")
    with gateway_process(tmp_path, GATEWAY_WORKERS="2") as gateway:
        before = until(lambda: len(found := children(gateway.popen.pid)) == 2 and found)
        (tmp_path / "api_tokens.json").unlink()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(found := children(gateway.popen.pid)) == 2 and not set(found) & set(before))
        for _ in range(40):
            until(lambda: answers(gateway))
            status, body = get_once(gateway, "/v1/models")
            assert (status, body["error"]["code"]) == (401, None)


def answers(gateway: Process) -> bool:
    try:
        return get_once(gateway, "/healthz")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    with gateway_process(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_WORKERS="2", GATEWAY_DRAIN_SECONDS="1") as gateway:
        workers = until(lambda: len(found := children(gateway.popen.pid)) == 2 and found)
        gateway.popen.kill()
        until(lambda: not any(is_alive(pid) for pid in workers), 15)


def run(folder: Path, *arguments: str, **values: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=folder,
        env=environment(folder, **values),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"Cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_every_problem_of_a_configuration_is_listed(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_text("{ damaged")
    done = run(tmp_path, GATEWAY_PORT="x", GATEWAY_WORKERS="0", GATEWAY_PROT="1")
    assert done.returncode == 78
    for name in ("GATEWAY_PORT", "GATEWAY_WORKERS", "GATEWAY_PROT", "GATEWAY_TOKENS_FILE"):
        assert f"- {name}:" in done.stderr, f"{name} is missing from {done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"GATEWAY_BACKEND": "none"}, "there is no backend 'none'; there are echo, openai"),
        ({"GATEWAY_BACKEND": "openai"}, "GATEWAY_UPSTREAM_URL"),
        ({"GATEWAY_TOKENS_FILE": "/"}, "GATEWAY_TOKENS_FILE"),
    ],
)
def test_a_start_that_cannot_be(tmp_path: Path, values: dict[str, str], named: str) -> None:
    done = run(tmp_path, **values)
    assert done.returncode == 78
    assert named in done.stderr


def test_check_and_version(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", GATEWAY_PORT="0")
    assert (done.returncode, done.stdout) == (0, "The configuration is good.\n")
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"gateway {__version__}\n")
    assert run(tmp_path, "--wrong").returncode == 2


def test_the_banner_says_what_to_do_next(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as gateway:
        line = next(line for line in gateway.log.read_text().splitlines() if '"serving"' in line)
        command = json.loads(line)["try"]
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=30, check=False)
        if done.returncode == 127:
            pytest.fail("curl is not installed")
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "Hello!"
