"""`python -m bench.page`: renders `docs/performance.md` and its plots from the results of a run, and from nothing else."""

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench import page_text as text
from bench.report import GATEWAY
from bench.servers import REPOSITORY
from bench.svg import Bar, bars

DOCS = REPOSITORY / "docs"
RESULTS = DOCS / "performance.json"
STAGES = REPOSITORY / "bench" / "stages.json"
PAGE = "performance.md"
VLLM, SGLANG, NGINX, DIRECT = "vllm-router", "sglang-router", "nginx", "direct"
UPSTREAMS = (DIRECT, "stream-upstream")
SMALL = "0.3 KiB"
LEAST_ADDED_MS = 0.01

Rounds = Sequence[Mapping[str, float]]
ByServer = Mapping[str, Rounds]


class Spread(NamedTuple):
    """The median of a run's rounds, the smallest and the largest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def of(rounds: Rounds, figure: str) -> Spread:
    return spread([one[figure] for one in rounds])


def ratio(servers: ByServer, other: str, figure: str, own: str = GATEWAY) -> Spread | None:
    """Returns one server divided by another, round by round; None if the other was not measured."""
    if other not in servers:
        return None
    return spread([ours[figure] / theirs[figure] for ours, theirs in zip(servers[own], servers[other], strict=True)])


def added(servers: ByServer, other: str, figure: str) -> Spread | None:
    """Returns what the gateway adds to the upstream's time, divided by what another one adds."""
    if other not in servers:
        return None
    rounds = zip(servers[GATEWAY], servers[other], servers[DIRECT], strict=True)
    return spread(
        [
            beyond(ours[figure], direct[figure]) / beyond(theirs[figure], direct[figure])
            for ours, theirs, direct in rounds
        ]
    )


def beyond(ms: float, direct_ms: float) -> float:
    """Returns a difference of times, at least one that a run can tell from none."""
    return max(ms - direct_ms, LEAST_ADDED_MS)


def write() -> None:
    """Writes the page and its plots."""
    for name, content in rendered().items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def rendered() -> dict[str, str]:
    """Returns the content of each file, by its path below ``docs/``."""
    run: dict[str, Any] = json.loads(RESULTS.read_text())
    stages: dict[str, Any] = json.loads(STAGES.read_text()) if STAGES.exists() else {}
    return {PAGE: page(run, stages), **plots(run)}


def plots(run: Mapping[str, Any]) -> dict[str, str]:
    small, large = run["requests"][SMALL], run["requests"]["16 KiB"]
    return {
        "performance/requests.svg": plot("Requests a second, 0.3 KiB", small, "requests_per_second"),
        "performance/cpu.svg": plot("CPU µs a request, 0.3 KiB", small, "cpu_us", 1),
        "performance/requests-16k.svg": plot("Requests a second, 16 KiB", large, "requests_per_second"),
        "performance/streams.svg": plot("CPU ms a stream of 100 events", run["streams"], "cpu_ms", 2),
    }


def plot(title: str, servers: ByServer, figure: str, digits: int = 0) -> str:
    """Returns the plot of all servers but the upstream, which shares its core with the load."""
    shown = {name: of(rounds, figure) for name, rounds in servers.items() if name not in UPSTREAMS}
    return bars(title, [Bar(name, *one, is_own=name == GATEWAY) for name, one in shown.items()], digits)


def page(run: Mapping[str, Any], stages: Mapping[str, Any]) -> str:
    parts = [
        text.TITLE,
        machine(run),
        "## Wanted and reached\n\n" + wanted(run),
        text.PLOTS,
        "## Requests\n\n" + text.REQUESTS,
        *(requests(size, servers) for size, servers in run["requests"].items()),
        "## One connection\n\n" + text.ONE_CONNECTION + "\n\n" + one_connection(run["one_connection"]),
        "## Streams\n\n" + text.STREAMS + "\n\n" + streams(run["streams"]),
        "## Memory and start\n\n" + memory(run),
        "## Stages of a request\n\n" + text.STAGES + "\n\n" + stage_table(stages) if stages else "",
        text.NOT_MEASURED,
        text.REPEAT,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: Spread, digits: int = 0) -> str:
    return f"{value.median:,.{digits}f} ({value.low:,.{digits}f} – {value.high:,.{digits}f})"


def machine(run: Mapping[str, Any]) -> str:
    facts, python = run["machine"], run["machine"]["python"]
    flags = ["--enable-optimizations"] * python["is_optimized"] + ["--with-lto"] * python["has_lto"]
    built = (
        f"built with `{' '.join(flags)}`" if flags else "whose `CONFIG_ARGS` name no optimization (Debian's never do)"
    )
    others = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    libraries = ", ".join(f"{name} {version}" for name, version in python["libraries"].items())
    missing = f" Not installed, so left out: {', '.join(run['missing'])}." if run["missing"] else ""
    return (
        f"Measured on {facts['date']}: {facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}; "
        f"nginx {facts['nginx']}, wrk {facts['wrk']}, {others}.{missing}\n\n"
        f"The gateway runs on Python {python['version']}, {built}, on which `sum(range(1000))` takes {python['sum_us']} µs; "
        f"{libraries}.\n\n"
        f"{open_servers(run)}"
        f"Other programs used {run['others']:.0%} of the machine meanwhile. "
        f"{run['options']['rounds']} rounds of {run['options']['seconds']} s for each server. "
        "Figures are medians, with the smallest and the largest round in brackets."
    )


def open_servers(run: Mapping[str, Any]) -> str:
    names = [name for name, refuses in run["refuses_wrong_key"].items() if not refuses and name not in UPSTREAMS]
    return f"**A wrong key is answered by {', '.join(names)}**, which so did less than the others.\n\n" if names else ""


class Aim(NamedTuple):
    """A row of the table of aims: what is wanted, and what a run has reached, None if it was not measured."""

    name: str
    wanted: float
    reached: Spread | None
    is_most: bool = False
    unit: str = "×"

    def row(self) -> list[str]:
        sign = "≤" if self.is_most else "≥"
        wanted = f"{sign} {self.wanted:g} {self.unit}"
        if self.reached is None:
            return [self.name, wanted, "not measured", ""]
        value = self.reached.median
        is_held = value <= self.wanted if self.is_most else value >= self.wanted
        return [self.name, wanted, f"{shown(self.reached, 2)} {self.unit}", "yes" if is_held else "**no**"]


def wanted(run: Mapping[str, Any]) -> str:
    requests, one = run["requests"], run["one_connection"]

    def speed(size: str, other: str) -> Spread | None:
        return ratio(requests[size], other, "requests_per_second")

    starts, commands = spread([ms / 1e3 for ms in run["start_ms"]]), spread([ms / 1e3 for ms in run["command_ms"]])
    idle = spread([run["memory"][GATEWAY]["before_mib"]])
    aims = [
        Aim("requests/s, against vllm-router", 1.0, speed(SMALL, VLLM)),
        Aim("requests/s, against sglang-router", 1.2, speed(SMALL, SGLANG)),
        Aim("requests/s, against nginx with a map of keys", 0.22, speed(SMALL, NGINX)),
        Aim("requests/s with 4 KiB, against vllm-router", 1.0, speed("4 KiB", VLLM)),
        Aim("requests/s with 16 KiB, against vllm-router", 1.0, speed("16 KiB", VLLM)),
        Aim("CPU a stream, against vllm-router", 1.0, ratio(run["streams"], VLLM, "cpu_ms"), is_most=True),
        Aim("added latency p50, against vllm-router's", 2, added(one, VLLM, "p50_ms"), is_most=True),
        Aim("added latency p99, against vllm-router's", 2, added(one, VLLM, "p99_ms"), is_most=True),
        Aim("start to the first answer", 0.5, starts, is_most=True, unit="s"),
        Aim("memory before the first request", 60, idle, is_most=True, unit="MiB"),
        Aim("a command of the token manager", 0.15, commands, is_most=True, unit="s"),
    ]
    return table(["", "wanted", "reached", "held"], [aim.row() for aim in aims])


def requests(size: str, servers: ByServer) -> str:
    rows = []
    for name, rounds in servers.items():
        against = ratio(servers, VLLM, "requests_per_second", own=name)
        rows.append(
            [
                name,
                shown(of(rounds, "requests_per_second")),
                shown(of(rounds, "cpu_us"), 1),
                f"{of(rounds, 'p50_ms').median:.2f}",
                f"{of(rounds, 'p99_ms').median:.2f}",
                f"{against.median:.2f}" if against else "",
            ]
        )
    return table([size, "requests/s", "CPU µs a request", "p50 ms", "p99 ms", "× vllm-router"], rows)


def one_connection(servers: ByServer) -> str:
    p50, p99 = (of(servers[DIRECT], figure).median for figure in ("p50_ms", "p99_ms"))
    rows = []
    for name, rounds in servers.items():
        own50, own99 = of(rounds, "p50_ms"), of(rounds, "p99_ms")
        rows.append([name, shown(own50, 3), shown(own99, 3), f"{own50.median - p50:.3f}", f"{own99.median - p99:.3f}"])
    return table(["", "p50 ms", "p99 ms", "added at p50", "added at p99"], rows)


def streams(servers: ByServer) -> str:
    rows = [
        [
            name,
            shown(of(rounds, "cpu_ms"), 2),
            f"{of(rounds, 'first_event_ms').median:.1f}",
            f"{of(rounds, 'slowest_seconds').median:.2f}",
        ]
        for name, rounds in servers.items()
    ]
    return table(["", "CPU ms a stream", "first event ms", "slowest stream s"], rows)


def memory(run: Mapping[str, Any]) -> str:
    rows = [[name, f"{one['before_mib']:.1f}", f"{one['after_mib']:.1f}"] for name, one in run["memory"].items()]
    starts, commands = spread(run["start_ms"]), spread(run["command_ms"])
    return (
        table(["resident MiB", "before the first request", "after those of 0.3 KiB"], rows)
        + f"\n\nThe gateway answers {shown(starts)} ms after its start; `token_manager.py list` takes {shown(commands)} ms."
    )


def stage_table(stages: Mapping[str, Any]) -> str:
    budget: Mapping[str, float] = stages["budget_us"]
    cpu: Mapping[str, float] = stages["cpu_us"]
    counts: Mapping[str, Mapping[str, float]] = stages["instructions"]
    rows = []
    for name in [*budget, "event loop"]:
        wanted = f"{budget[name]:g}" if name in budget else ""
        rows.append([name, wanted, f"{cpu[name]:.1f}", *(f"{one.get(name, 0):,.0f}" for one in counts.values())])
    totals = [f"{sum(one.values()):,.0f}" for one in counts.values()]
    rows.append(["**sum**", f"{sum(budget.values()):g}", f"{sum(cpu.values()):.1f}", *totals])
    heads = [f"instructions, Python {version}" for version in counts]
    note = f"CPU of Python {stages['cpu_python']}, on which `sum(range(1000))` takes {stages['sum_us']} µs."
    return table(["stage", "budget µs", "CPU µs", *heads], rows) + "\n\n" + note


if __name__ == "__main__":
    write()
