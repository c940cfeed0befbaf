"""`python -m bench.stages`: what each stage of a request costs, in CPU time and in instructions of the interpreter.

A frame belongs to the stage of its file, or to that of its caller. Instructions are counted one by one, so that their number
depends on the version of Python alone. `bench/stages.json` keeps both, beside the budget.
"""

import argparse
import inspect
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from bench import in_process, page
from bench.in_process import Running
from bench.servers import REPOSITORY

BUDGET_US = {
    "parse": 13,
    "route": 3,
    "authenticate": 4,
    "read the body": 5,
    "admit": 10,
    "send": 14,
    "meter": 4,
    "record": 5,
    "answer": 4,
    "log": 3,
    "metrics": 2,
}
LOOP = "event loop"
"""What belongs to no stage: the turns of the event loop, and the load."""

STAGE_OF = (
    ("server/response_head.py", "answer"),
    ("server/http1_exchange.py:Http1Exchange.send", "answer"),
    ("server/", "parse"),
    ("http/context.py:RequestContext.send", "answer"),
    ("http/context.py:RequestContext.common_headers", "answer"),
    ("http/response.py", "answer"),
    ("http/context.py", "parse"),
    ("http/request.py", "parse"),
    ("http/pipeline.py", "parse"),
    ("http/middleware/in_flight.py", "parse"),
    ("http/middleware/drain.py", "parse"),
    ("http/middleware/cors.py", "parse"),
    ("http/middleware/authentication.py", "authenticate"),
    ("http/middleware/access_log.py", "log"),
    ("http/middleware/body_limit.py", "read the body"),
    ("http/body_memory.py", "read the body"),
    ("http/params.py", "read the body"),
    ("http/", "route"),
    ("routing/", "route"),
    ("inference/service.py", "route"),
    ("auth/", "authenticate"),
    ("tokens/last_used.py", "record"),
    ("tokens/stores/use_journal.py", "record"),
    ("tokens/uses.py", "record"),
    ("tokens/", "authenticate"),
    ("core/json_body.py", "read the body"),
    ("inference/checked_requests.py", "read the body"),
    ("inference/nested_models.py", "read the body"),
    ("inference/models.py", "read the body"),
    ("inference/usage_tracker.py", "meter"),
    ("inference/", "admit"),
    ("limits/presentation.py", "answer"),
    ("limits/", "admit"),
    ("usage/estimate.py", "admit"),
    ("usage/attachments.py", "admit"),
    ("usage/ledger.py", "record"),
    ("usage/running.py", "record"),
    ("usage/stores/", "record"),
    ("storage/", "record"),
    ("usage/", "meter"),
    ("providers/", "send"),
    ("observability/logging.py", "log"),
    ("observability/redaction.py", "log"),
    ("observability/", "metrics"),
)
"""The beginning of a file's path in the package, with a function after a colon; the first match counts."""

RESULTS = page.STAGES
PACKAGE = f"{REPOSITORY / 'gateway'}/"
WARM_UP, COUNTED, BATCHES = 300, 50, 5
TIMED, SLICES = 2000, 8
SAMPLE_SECONDS = 0.0005


class Stages:
    """Says to which stage a frame belongs. Remembers what it has found for a function."""

    def __init__(self) -> None:
        self._known: dict[CodeType, str | None] = {}

    def own(self, code: CodeType) -> str | None:
        """Returns the stage of a function, None where its caller decides."""
        if code not in self._known:
            self._known[code] = stage_of(code.co_filename, code.co_qualname)
        return self._known[code]

    def of(self, frame: FrameType | None) -> str:
        """Returns the stage of a frame: its own, or that of the next frame outwards that has one."""
        while frame is not None:
            if (stage := self.own(frame.f_code)) is not None:
                return stage
            frame = frame.f_back
        return LOOP


def stage_of(file: str, function: str) -> str | None:
    """Returns the stage of a function of the package, None for all others."""
    if not file.startswith(PACKAGE):
        return None
    name = f"{file.removeprefix(PACKAGE)}:{function}"
    return next((stage for start, stage in STAGE_OF if name.startswith(start)), None)


async def count_instructions(gateway: Running) -> dict[str, float]:
    """Returns the instructions of each stage, a request, in the main thread.

    It takes the least of several batches, because background tasks run at times of their own.
    """
    await gateway.repeat(WARM_UP)
    stages = Stages()
    batches = []
    for _ in range(BATCHES):
        counts: Counter[str] = Counter()
        if (frame := inspect.currentframe()) is not None:
            frame.f_trace_opcodes = True  # early Python 3.12 takes notice of it only before ``settrace``
        sys.settrace(counter_of(stages, counts))
        try:
            await gateway.repeat(COUNTED)
        finally:
            sys.settrace(None)
        batches.append(counts)
    return {stage: round(min(counts[stage] for counts in batches) / COUNTED) for stage in BUDGET_US}


def counter_of(stages: Stages, counts: Counter[str]) -> Callable[[FrameType, str, object], Any]:
    """Returns a function for ``sys.settrace`` that counts the instructions of each stage."""

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        stage = stages.of(frame)
        if stage == LOOP:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def count(_frame: FrameType, event: str, _argument: object) -> Any:
            if event == "opcode":
                counts[stage] += 1
            return count

        return count

    return trace


async def time_stages(gateway: Running) -> dict[str, float]:
    """Returns the CPU µs of each stage, a request. The ledger's thread writes after each slice; its time is that of *record*."""
    await gateway.repeat(WARM_UP)
    slices, threads = [], []
    for _ in range(SLICES):
        own, whole = time.thread_time(), time.process_time()
        await gateway.repeat(TIMED)
        await gateway.app.ledger.flush()
        spent = time.thread_time() - own
        slices.append(spent / TIMED * 1e6)
        threads.append((time.process_time() - whole - spent) / TIMED * 1e6)
    shares = await sample(gateway)
    total = statistics.median(slices)
    cpu = {stage: total * shares.get(stage, 0.0) for stage in (*BUDGET_US, LOOP)}
    cpu["record"] += statistics.median(threads)
    return {stage: round(used, 1) for stage, used in cpu.items()}


async def sample(gateway: Running) -> Mapping[str, float]:
    """Returns the part of the time that a timer finds the main thread in each stage."""
    found: Counter[str] = Counter()
    stages = Stages()
    before = signal.signal(signal.SIGALRM, lambda _number, frame: found.update((stages.of(frame),)))
    signal.setitimer(signal.ITIMER_REAL, SAMPLE_SECONDS, SAMPLE_SECONDS)
    try:
        await gateway.repeat(TIMED * SLICES)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return {stage: count / found.total() for stage, count in found.items()}


def measure(how: Callable[[Running], Any]) -> dict[str, float]:
    async def main(folder: Path) -> dict[str, float]:
        async with in_process.running(folder) as gateway:
            measured: dict[str, float] = await how(gateway)
            return measured

    with tempfile.TemporaryDirectory(prefix="gateway-stages-") as folder:
        result: dict[str, float] = in_process.run(main(Path(folder)))
    return result


def minor_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def counted_by(python: Path) -> dict[str, float]:
    """Returns the instructions of each stage, counted in a process of its own. Raises CalledProcessError."""
    command = [str(python), "-m", "bench.stages", "--count"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=True)
    counts: dict[str, float] = json.loads(done.stdout)
    return counts


def table(result: Mapping[str, Any], counts: Mapping[str, float]) -> str:
    lines = [f"{'stage':<15}{'budget µs':>10}{'CPU µs':>9}{'instructions':>14}"]
    for stage in (*BUDGET_US, LOOP):
        budget, cpu = BUDGET_US.get(stage, ""), result["cpu_us"][stage]
        lines.append(f"{stage:<15}{budget:>10}{cpu:>9.1f}{counts.get(stage, 0):>14,.0f}")
    total = sum(result["cpu_us"].values())
    return "\n".join([*lines, f"{'sum':<15}{sum(BUDGET_US.values()):>10}{total:>9.1f}{sum(counts.values()):>14,.0f}"])


def version_of(python: Path) -> str:
    code = "import platform; print('.'.join(platform.python_version_tuple()[:2]))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def renew(others: Sequence[Path]) -> None:
    """Measures both, writes `bench/stages.json` and the page. ``others`` are more interpreters to count with."""
    facts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"instructions": {}}
    counts = counted_by(Path(sys.executable))
    more = {version_of(python): counted_by(python) for python in others}
    facts["instructions"] = dict(sorted({**facts["instructions"], **more, minor_version(): counts}.items()))
    command = [sys.executable, "-m", "bench.stages", "--time"]
    timed = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    facts.update(json.loads(timed.stdout), budget_us=BUDGET_US)
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    page.write()
    print(table(facts, counts))


def time_here() -> dict[str, object]:
    from bench.machine import facts

    python: Any = facts(Path(sys.executable))["python"]
    return {"cpu_us": measure(time_stages), "cpu_python": python["version"], "sum_us": python["sum_us"]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--count", action="store_true", help="only count instructions, and print them as JSON")
    parser.add_argument("--time", action="store_true", help="only measure the time, and print it as JSON")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="interpreters of other versions to count with")
    options = parser.parse_args(argv)
    if options.count:
        print(json.dumps(measure(count_instructions)))
    elif options.time:
        print(json.dumps(time_here()))
    else:
        renew(options.also)
    return 0


if __name__ == "__main__":
    sys.exit(main())
