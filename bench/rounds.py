"""What is measured, in which order: every server in every round, so that a ratio is of one moment."""

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from bench import processes, servers, streams, wrk
from bench.payloads import chat_answer, chat_request
from bench.peers import Peer
from bench.processes import Command, Server
from bench.report import GATEWAY, RELAY, Footprint, Report, RequestRound, StreamRound

# What is written behind (the token file) belongs to the requests that caused it, not to the next server.
SETTLE_SECONDS = 1.0
CONNECTIONS = 32
STREAMS, CHUNKS, INTERVAL = 100, 100, 0.010


@dataclass(frozen=True)
class Run:
    place: servers.Place
    token: str
    control: bool  # a second relay in the gateway's place
    rounds: int
    seconds: int
    warm_up: int
    starts: int
    nginx: bool = False  # nginx with a key map beside the others
    peers: Sequence[Peer] = ()

    def limit(self, upstream: str) -> list[Command]:
        commands = [peer.command(self.place, upstream, self.token) for peer in self.peers]
        return [*commands, servers.nginx_key_map(self.place, upstream, self.token)] if self.nginx else commands

    def subjects(self, upstream: str) -> list[Command]:
        relay = servers.relay(self.place, upstream, RELAY)
        if self.control:
            return [servers.relay(self.place, upstream, GATEWAY), relay]
        return [servers.gateway(self.place, upstream, GATEWAY), relay]


def measure_requests(run: Run, result: Report) -> None:
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(processes.running(servers.nginx(run.place), run.place.load_core))
        starts = start_times(run, direct.url)
        subjects = started(stack, run, direct.url)
        result.mode = "control: a second relay" if run.control else mode_of(subjects[0])
        request_rounds(run, result, [*subjects, *limits(stack, run, direct.url), direct])
        for server in subjects:
            result.footprints[server.name] = footprint(server, starts[server.name])


def measure_streams(run: Run, result: Report) -> None:
    upstream = servers.stream_upstream(run.place, CHUNKS, INTERVAL)
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(processes.running(upstream, run.place.load_core))
        stream_rounds(run, result, [*started(stack, run, direct.url), *limits(stack, run, direct.url), direct])


def start_times(run: Run, upstream: str) -> dict[str, list[float]]:
    """Milliseconds of the starts before the one that is measured on; the first may still compile modules."""
    times: dict[str, list[float]] = {GATEWAY: [], RELAY: []}
    for _ in range(run.starts - 1):
        for command in run.subjects(upstream):
            with processes.running(command, run.place.server_core) as server:
                times[server.name].append(server.start_seconds * 1e3)
    return times


def started(stack: contextlib.ExitStack, run: Run, upstream: str) -> list[Server]:
    commands = run.subjects(upstream)
    return [stack.enter_context(processes.running(command, run.place.server_core)) for command in commands]


def limits(stack: contextlib.ExitStack, run: Run, upstream: str) -> list[Server]:
    return [stack.enter_context(processes.running(command, run.place.server_core)) for command in run.limit(upstream)]


def mode_of(gateway: Server) -> str:
    with urllib.request.urlopen(f"{gateway.url}/healthz", timeout=5) as answer:
        return str(json.load(answer).get("mode"))


def footprint(server: Server, starts: Sequence[float]) -> Footprint:
    return Footprint(
        start_ms=[*starts, server.start_seconds * 1e3],
        resident_mib=processes.resident_bytes(server.pid) / 2**20,
        log_lines=server.command.log.read_bytes().count(b"\n"),
    )


def request_rounds(run: Run, result: Report, subjects: Sequence[Server]) -> None:
    script = wrk.write_script(run.place.folder, run.token, chat_request())
    load = wrk.Load(servers.find_program("wrk"), CONNECTIONS, script)
    for server in subjects:
        wrk.check_answer(server, run.token, chat_request(), chat_answer())
        wrk.run(load, server, run.warm_up)
        result.requests[server.name] = []
    time.sleep(SETTLE_SECONDS)
    for number in range(run.rounds):
        for server in in_turn(subjects, number):
            result.requests[server.name].append(request_round(run, load, server))
        tell(number, run.rounds, "requests")


def stream_rounds(run: Run, result: Report, subjects: Sequence[Server]) -> None:
    for server in subjects:
        streams.run(server, run.token, STREAMS, CHUNKS)
        result.streams[server.name] = []
    time.sleep(SETTLE_SECONDS)
    for number in range(run.rounds):
        for server in in_turn(subjects, number):
            result.streams[server.name].append(stream_round(run, server))
        tell(number, run.rounds, "streams")


def in_turn(subjects: Sequence[Server], number: int) -> Sequence[Server]:
    """Forwards and backwards by turns: a machine that grows slower over the run favours nobody."""
    return subjects if number % 2 == 0 else subjects[::-1]


def request_round(run: Run, load: wrk.Load, server: Server) -> RequestRound:
    before = processes.cpu_seconds(server.pid)
    outcome = wrk.run(load, server, run.seconds)
    time.sleep(SETTLE_SECONDS)
    spent = processes.cpu_seconds(server.pid) - before
    return RequestRound(
        requests_per_second=outcome.requests / outcome.seconds,
        cpu_us_per_request=spent / outcome.requests * 1e6,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
    )


def stream_round(run: Run, server: Server) -> StreamRound:
    before = processes.cpu_seconds(server.pid)
    outcome = streams.run(server, run.token, STREAMS, CHUNKS)
    time.sleep(SETTLE_SECONDS)
    spent = processes.cpu_seconds(server.pid) - before
    return StreamRound(
        cpu_us_per_chunk=spent / outcome.events * 1e6,
        events_per_read=outcome.events_per_read,
        first_event_ms=outcome.first_event_ms,
        slowest_seconds=outcome.seconds,
    )


def tell(number: int, rounds: int, what: str) -> None:
    print(f"{what}: round {number + 1} of {rounds} done", file=sys.stderr)
