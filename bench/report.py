"""From rounds to figures: medians, ratios round by round, a table to read and a JSON document to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

GATEWAY, RELAY = "gateway", "relay"


@dataclass(frozen=True)
class RequestRound:
    requests_per_second: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class StreamRound:
    cpu_us_per_chunk: float
    events_per_read: float
    first_event_ms: float
    slowest_seconds: float


@dataclass(frozen=True)
class Footprint:
    start_ms: Sequence[float]
    resident_mib: float
    log_lines: int


@dataclass(frozen=True)
class Ratio:
    """Gateway divided by relay, each pair from the same round: what the machine did to both cancels out."""

    median: float
    min: float
    max: float
    rounds: Sequence[float]


@dataclass
class Report:
    options: Mapping[str, object]
    mode: str = ""  # the authentication mode by the gateway's own account
    requests: dict[str, list[RequestRound]] = field(default_factory=dict)
    streams: dict[str, list[StreamRound]] = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)

    def ratio(self, figure: str) -> Ratio:
        rounds = self.streams if figure == "cpu_us_per_chunk" else self.requests
        pairs = zip(rounds[GATEWAY], rounds[RELAY], strict=True)
        return ratio_of([getattr(ours, figure) / getattr(theirs, figure) for ours, theirs in pairs])

    def ratios(self) -> dict[str, Ratio]:
        figures = ["requests_per_second", "cpu_us_per_request"]
        if self.streams:
            figures.append("cpu_us_per_chunk")
        return {figure: self.ratio(figure) for figure in figures}

    def document(self) -> dict[str, object]:
        return {**asdict(self), "ratios": {figure: asdict(ratio) for figure, ratio in self.ratios().items()}}


def ratio_of(quotients: Sequence[float]) -> Ratio:
    return Ratio(median(quotients), min(quotients), max(quotients), quotients)


def middle(rounds: Sequence[object], figure: str) -> float:
    return float(median(getattr(one, figure) for one in rounds))


def table(report: Report) -> str:
    blocks = [request_table(report.requests)]
    if report.streams:
        blocks.append(stream_table(report.streams))
    blocks += [footprint_table(report.footprints), ratio_table(report.ratios())]
    return "\n\n".join([*blocks, f"authentication mode: {report.mode}"])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def request_table(requests: Mapping[str, Sequence[RequestRound]]) -> str:
    rows = [["plain requests (median)", "requests/s", "CPU µs/request", "p50 ms", "p99 ms"]]
    for name, rounds in requests.items():
        rows.append(
            [
                name,
                f"{middle(rounds, 'requests_per_second'):,.0f}",
                f"{middle(rounds, 'cpu_us_per_request'):.1f}",
                f"{middle(rounds, 'p50_ms'):.2f}",
                f"{middle(rounds, 'p99_ms'):.2f}",
            ]
        )
    return aligned(rows)


def stream_table(streams: Mapping[str, Sequence[StreamRound]]) -> str:
    rows = [["streams (median)", "CPU µs/chunk", "events/read", "first event ms", "slowest s"]]
    for name, rounds in streams.items():
        rows.append(
            [
                name,
                f"{middle(rounds, 'cpu_us_per_chunk'):.1f}",
                f"{middle(rounds, 'events_per_read'):.2f}",
                f"{middle(rounds, 'first_event_ms'):.1f}",
                f"{middle(rounds, 'slowest_seconds'):.2f}",
            ]
        )
    return aligned(rows)


def footprint_table(footprints: Mapping[str, Footprint]) -> str:
    rows = [["footprint", "start ms (median)", "resident MiB after", "log lines"]]
    for name, one in footprints.items():
        rows.append([name, f"{median(one.start_ms):.0f}", f"{one.resident_mib:.1f}", f"{one.log_lines:,}"])
    return aligned(rows)


def ratio_table(ratios: Mapping[str, Ratio]) -> str:
    rows = [["gateway / relay", "median", "min", "max"]]
    for figure, ratio in ratios.items():
        rows.append([figure, f"{ratio.median:.2f}", f"{ratio.min:.2f}", f"{ratio.max:.2f}"])
    return aligned(rows)
