"""Processes of a run: started on one core, waited for, measured from `/proc`, and stopped again by id."""

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.002


class BenchError(Exception):
    """The run cannot go on or is not worth believing; the text tells the person who started it why."""


@dataclass(frozen=True)
class Command:
    """How to start one server that will listen on `port` of loopback and answer 200 to GET `ready_path`."""

    name: str
    arguments: Sequence[str]
    port: int
    folder: Path
    environment: Mapping[str, str]
    ready_path: str = "/healthz"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"


@dataclass(frozen=True)
class Server:
    command: Command
    pid: int
    start_seconds: float  # from the spawn to the first 200 of its ready_path

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def url(self) -> str:
        return self.command.url


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pins this process; what is spawned meanwhile inherits the core, with all its threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(command: Command, core: int) -> Iterator[Server]:
    """A started server that answers; stopped on leaving, however that comes about."""
    began = time.perf_counter()
    with command.log.open("wb") as log, on_core(core):
        process = subprocess.Popen(
            list(command.arguments),
            cwd=command.folder,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_ready(command, process)
        yield Server(command, process.pid, time.perf_counter() - began)
    finally:
        stop(process)


def wait_ready(command: Command, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not answers(command.port, command.ready_path):
        if process.poll() is not None:
            raise BenchError(f"{command.name} ended with code {process.returncode}:\n{tail(command.log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{command.name} not ready after {READY_SECONDS:g} s:\n{tail(command.log)}")
        time.sleep(POLL_SECONDS)


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # The group is the server's own (a new session), so this reaches its workers and nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, SIGKILL)
        process.wait(STOP_SECONDS)


def tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, with those that ended and were waited for."""
    ticks = sum(sum(map(int, stat_fields(member)[11:15])) for member in family(pid))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(stat_fields(member)[21]) * page for member in family(pid))


def family(pid: int) -> list[int]:
    parents = {child: int(fields[1]) for child in all_pids() if (fields := stat_fields(child))}
    if pid not in parents:
        raise BenchError(f"process {pid} ended in the middle of the run")
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def stat_fields(pid: int) -> list[str]:
    """`/proc/<pid>/stat` from its third field (state) on, [] if it is gone; the second may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
