"""`python -m bench.compare`: this gateway with everything on beside other gateways and nginx, in one run on one core.

It writes `docs/performance.json`, and from that `docs/performance.md` with its plots.
"""

import argparse
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench import machine, page, peers, processes, quick, rounds, servers, streams, wrk
from bench.payloads import chat_answer, chat_request
from bench.processes import BenchError, Command, Server
from bench.report import GATEWAY

SIZES = {"0.3 KiB": (280, 576), "4 KiB": (4096, 4096), "16 KiB": (16384, 16384)}
"""Bytes of the request and of the response."""
STREAMS, EVENTS, INTERVAL = 100, 100, 0.010
READY_SECONDS = 20.0


@dataclass
class Comparison:
    """All rounds of a run. The keys are the names of the servers, those of ``requests`` the sizes before."""

    machine: dict[str, object]
    options: dict[str, object]
    versions: dict[str, str]
    missing: list[str]
    others: float = 0.0
    refuses_wrong_key: dict[str, bool] = field(default_factory=dict)
    requests: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    one_connection: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    streams: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    start_ms: list[float] = field(default_factory=list)
    command_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Session:
    """What all parts of a run share."""

    place: servers.Place
    token: str
    rounds: int
    seconds: int

    def commands(self, upstream: str) -> list[Command]:
        others = [peer.command(self.place, upstream, self.token) for peer in peers.installed()]
        ours = servers.gateway(self.place, upstream, GATEWAY)
        return [ours, *others, servers.nginx_key_map(self.place, upstream, self.token)]

    @contextlib.contextmanager
    def servers(self, upstream: Command) -> Iterator[list[Server]]:
        """Starts the upstream on the load's core and all others on theirs; the last one is the upstream itself."""
        with contextlib.ExitStack() as stack:
            direct = stack.enter_context(processes.running(upstream, self.place.load_core))
            subjects = [
                stack.enter_context(processes.running(command, self.place.server_core))
                for command in self.commands(direct.url)
            ]
            yield [*subjects, direct]

    def interleaved(
        self, subjects: Sequence[Server], what: str, measure: Callable[[Server], dict[str, float]]
    ) -> dict[str, list[dict[str, float]]]:
        """Measures every server in every round, so that a ratio is of one moment."""
        results: dict[str, list[dict[str, float]]] = {server.name: [] for server in subjects}
        for number in range(self.rounds):
            for server in rounds.in_turn(subjects, number):
                results[server.name].append(measure(server))
            rounds.tell(number, self.rounds, what)
        return results


def measure_requests(session: Session, result: Comparison) -> None:
    """Measures each size with servers of its own; the memory and one connection at the smallest one."""
    for name, (asked, answered) in SIZES.items():
        question, answer = chat_request(asked), chat_answer(answered)
        load = wrk.Load(
            servers.find_program("wrk"),
            rounds.CONNECTIONS,
            wrk.write_script(session.place.folder, session.token, question),
        )
        with session.servers(servers.fixed_upstream(session.place, answer)) as subjects:
            before = {server.name: processes.resident_bytes(server.pid) for server in subjects}
            for server in subjects:
                check(server, session.token, question, answer)
                result.refuses_wrong_key[server.name] = wrk.refuses_wrong_key(server, session.token, question)
                wrk.run(load, server, 1)
            time.sleep(rounds.SETTLE_SECONDS)
            result.requests[name] = session.interleaved(subjects, name, partial(request_round, session, load))
            if not result.memory:
                result.memory = {server.name: memory(server, before[server.name]) for server in subjects}
                alone = partial(latency, session, wrk.Load(load.program, 1, load.script))
                result.one_connection = session.interleaved(subjects, "one connection", alone)


def check(server: Server, token: str, question: str, answer: str) -> None:
    """Waits until a server has found its upstream. Raises BenchError for a wrong answer."""
    deadline = time.monotonic() + READY_SECONDS
    while wrk.ask(server, token, question)[0] in (404, 503) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrk.check_answer(server, token, question, answer)


def request_round(session: Session, load: wrk.Load, server: Server) -> dict[str, float]:
    before = processes.cpu_seconds(server.pid)
    outcome = wrk.run(load, server, session.seconds)
    time.sleep(rounds.SETTLE_SECONDS)
    spent = processes.cpu_seconds(server.pid) - before
    return {
        "requests_per_second": outcome.requests / outcome.seconds,
        "cpu_us": spent / outcome.requests * 1e6,
        "p50_ms": outcome.p50_ms,
        "p99_ms": outcome.p99_ms,
    }


def latency(session: Session, load: wrk.Load, server: Server) -> dict[str, float]:
    outcome = wrk.run(load, server, session.seconds)
    return {"p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms}


def memory(server: Server, before: int) -> dict[str, float]:
    return {"before_mib": before / 2**20, "after_mib": processes.resident_bytes(server.pid) / 2**20}


def measure_streams(session: Session, result: Comparison) -> None:
    upstream = servers.stream_upstream(session.place, EVENTS, INTERVAL)
    with session.servers(upstream) as subjects:
        for server in subjects:
            streams.run(server, session.token, STREAMS, EVENTS)
        time.sleep(rounds.SETTLE_SECONDS)
        result.streams = session.interleaved(subjects, "streams", partial(stream_round, session))


def stream_round(session: Session, server: Server) -> dict[str, float]:
    before = processes.cpu_seconds(server.pid)
    outcome = streams.run(server, session.token, STREAMS, EVENTS)
    time.sleep(rounds.SETTLE_SECONDS)
    return {
        "cpu_ms": (processes.cpu_seconds(server.pid) - before) / STREAMS * 1e3,
        "first_event_ms": outcome.first_event_ms,
        "slowest_seconds": outcome.seconds,
    }


def measure_starts(session: Session, result: Comparison) -> None:
    """Measures the time from the spawn to the first answer, and that of a command of the token manager."""
    with processes.running(servers.fixed_upstream(session.place, chat_answer()), session.place.load_core) as upstream:
        for _ in range(session.rounds):
            command = servers.gateway(session.place, upstream.url, GATEWAY)
            with processes.running(command, session.place.server_core) as server:
                result.start_ms.append(server.start_seconds * 1e3)
            began = time.perf_counter()
            servers.list_tokens(session.place)
            result.command_ms.append((time.perf_counter() - began) * 1e3)


def measure(options: argparse.Namespace, folder: Path) -> Comparison:
    quick.check_tools(options.python)
    server_core, load_core = quick.two_cores()
    place = servers.Place(folder, options.python.absolute(), server_core, load_core)
    others = machine.OtherPrograms()
    result = Comparison(
        machine=machine.facts(place.python),
        options={"rounds": options.rounds, "seconds": options.seconds},
        versions={peer.name: peer.version for peer in peers.installed()},
        missing=peers.tell_missing(),
    )
    session = Session(place, servers.create_token(place), options.rounds, options.seconds)
    with processes.on_core(load_core):
        measure_starts(session, result)
        measure_requests(session, result)
        measure_streams(session, result)
    result.others = round(others.share(), 3)
    return result


def summary(result: Comparison) -> str:
    lines = []
    for size, by_server in result.requests.items():
        for name, all_rounds in by_server.items():
            speed = statistics.median(one["requests_per_second"] for one in all_rounds)
            cpu = statistics.median(one["cpu_us"] for one in all_rounds)
            lines.append(f"{size:<8} {name:<14} {speed:>9,.0f}/s {cpu:>7.1f} CPU µs")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=quick.positive, default=5)
    add("--seconds", type=quick.positive, default=3, help="length of one server's load in one round")
    add("--python", type=Path, default=servers.REPOSITORY / ".venv" / "bin" / "python", help="runs the gateway")
    add("--json", type=Path, default=page.RESULTS, metavar="FILE", help="write to FILE; by default also the page")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, quick.leave)
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
            result = measure(options, Path(folder))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    options.json.write_text(json.dumps(rounded(asdict(result)), indent=1, ensure_ascii=False) + "\n")
    print(summary(result))
    if options.json == page.RESULTS:
        page.write()
    return 0


def rounded(value: object) -> object:
    """Returns the same with fewer digits: what a run cannot tell apart makes a difference unreadable."""
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {name: rounded(one) for name, one in value.items()}
        case list():
            return [rounded(one) for one in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
