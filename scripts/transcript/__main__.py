"""``python -m scripts.transcript CHECKOUT``: print the transcript of a checkout; ``--only`` for a part of it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from scripts.transcript import (
    cases_cli,
    cases_environment,
    cases_limits,
    cases_open,
    cases_protocol,
    cases_start,
    cases_tokens,
    cases_trouble,
    cases_upstream,
    processes,
)
from scripts.transcript.session import Section

SECTIONS: Mapping[str, Callable[[Section], None]] = MappingProxyType(
    {
        "start": cases_start.record,
        "commands": cases_cli.record,
        "files": cases_cli.record_files,
        "open": cases_open.record,
        "protocol": cases_protocol.record,
        "environment": cases_environment.record,
        "allow-open": cases_environment.record_allow_open,
        "tokens": cases_tokens.record,
        "limits": cases_limits.record,
        "upstream": cases_upstream.record,
        "trouble": cases_trouble.record,
        "unreachable": cases_upstream.record_unreachable,
    }
)
_KEEP_WAITS = frozenset({"upstream"})
_AT_A_TIME = 2
_HOUR_SECONDS = 3600
_LONGEST_RUN_SECONDS = 100


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.transcript", description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder with the package `gateway` in it")
    parser.add_argument(
        "--only", choices=list(SECTIONS), action="append", help="this section; may be given several times"
    )
    asked = parser.parse_args(argv)
    checkout = asked.checkout.resolve()
    if not (checkout / "gateway").is_dir():
        parser.error(f"{checkout} has no folder `gateway`")
    _wait_for_the_next_hour()
    version = _version(checkout)
    names = asked.only or list(SECTIONS)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        results = list(pool.map(lambda name: _recorded(name, checkout, version), names))
    for text, _ in results:
        print(text)
    print(f"{sum(exchanges for _, exchanges in results)} exchanges and commands", file=sys.stderr)
    return 0


def _recorded(name: str, checkout: Path, version: str) -> tuple[str, int]:
    section = Section(name, checkout, version, keeps_waits=name in _KEEP_WAITS)
    try:
        SECTIONS[name](section)
        return section.text(), section.exchanges
    finally:
        section.close()


def _version(checkout: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return processes.run(checkout, Path(folder), ["-m", "gateway", "--version"], {}).stdout.split()[-1]


def _wait_for_the_next_hour() -> None:
    """Usage is summed by the hour: a run over the full hour would show two of them."""
    left = _HOUR_SECONDS - time.time() % _HOUR_SECONDS
    if left < _LONGEST_RUN_SECONDS:
        print(f"waiting {left:.0f} s for the next full hour", file=sys.stderr)
        time.sleep(left)


if __name__ == "__main__":
    sys.exit(main())
