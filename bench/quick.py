"""`python -m bench.quick`: this gateway beside a bare relay, vllm-router if it is installed, and the upstream itself."""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import peers, processes, report, rounds, servers
from bench.processes import BenchError


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quick", description=__doc__)
    add = parser.add_argument
    add("--streams", action="store_true", help="also measure CPU per streamed chunk")
    add("--rounds", type=positive, default=3)
    add("--seconds", type=positive, default=2, help="length of one server's load in one round")
    add("--warm-up", type=positive, default=1, help="seconds of load before the first round")
    add("--starts", type=positive, default=3, help="how many starts the start-up time is the median of")
    add(
        "--credential",
        choices=["key", "token"],
        default="token",
        help="load with the environment key, or with a stored token that has all four limits",
    )
    add("--control", action="store_true", help="a second relay in the gateway's place: shows the noise")
    add("--nginx", action="store_true", help="also measure nginx with a map of keys, on the gateway's core: the limit")
    add("--json", type=Path, metavar="FILE", help="write every round to FILE too")
    add("--require", type=float, metavar="RATIO", help="exit 1 if gateway / relay (median requests/s) is less")
    add("--python", type=Path, default=servers.REPOSITORY / ".venv" / "bin" / "python")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def two_cores() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchError("two cores are needed: one for what is measured, one for load and upstream")
    return allowed[0], allowed[1]


def check_tools(python: Path) -> None:
    """Before anything starts: what is missing is told at once, all of it, and not after a minute."""
    missing = []
    for program in servers.PACKAGES:
        try:
            servers.find_program(program)
        except BenchError as error:
            missing.append(str(error))
    if not python.exists():
        missing.append(f"{python} is missing; `make run` sets it up, --python names another")
    if missing:
        raise BenchError("\nbench: ".join(missing))


def measure(options: argparse.Namespace, folder: Path) -> report.Report:
    check_tools(options.python)
    server_core, load_core = two_cores()
    place = servers.Place(folder, options.python.absolute(), server_core, load_core)
    token = servers.create_token(place) if options.credential == "token" else servers.KEY
    run = rounds.Run(
        place=place,
        token=token,
        control=options.control,
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up=options.warm_up,
        starts=options.starts,
        nginx=options.nginx,
        peers=[peer for peer in peers.installed() if peer.name == "vllm-router"],
    )
    shown = ("rounds", "seconds", "warm_up", "credential", "control", "nginx")
    result = report.Report(options={name: getattr(options, name) for name in shown})
    with processes.on_core(load_core):
        rounds.measure_requests(run, result)
        if options.streams:
            rounds.measure_streams(run, result)
    return result


def verdict(required: float | None, reached: float) -> int:
    if required is None or reached >= required:
        return 0
    print(f"bench: gateway / relay is {reached:.3f}, less than the required {required:g}", file=sys.stderr)
    return 1


def leave(signum: int, frame: FrameType | None) -> None:
    # As an exception, so that every `finally` runs and no server is left behind.
    raise SystemExit(128 + signum)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
            result = measure(options, Path(folder))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(report.table(result))
    if options.json:
        options.json.write_text(json.dumps(result.document(), indent=2) + "\n")
    return verdict(options.require, result.ratio("requests_per_second").median)


if __name__ == "__main__":
    sys.exit(main())
