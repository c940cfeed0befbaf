"""What a run was made on: processor, kernel, interpreter, versions, and how busy other programs kept the machine."""

import json
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench import servers

LIBRARIES = ("aiohttp", "httptools", "msgspec", "multidict", "uvloop")
_INTERPRETER = f"""
import json, platform, sysconfig, timeit
from importlib.metadata import version
flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
times = timeit.repeat("sum(range(1000))", number=2000, repeat=9)
print(json.dumps({{
    "version": platform.python_version(),
    "is_optimized": "--enable-optimizations" in flags,
    "has_lto": "--with-lto" in flags,
    "sum_us": round(min(times) / 2000 * 1e6, 2),
    "libraries": {{name: version(name) for name in {LIBRARIES!r}}},
}}))
"""


def facts(python: Path) -> dict[str, object]:
    """Returns what the page says of the machine; ``python`` runs the gateway."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "nginx": printed(servers.find_program("nginx"), "-v"),
        "wrk": printed(servers.find_program("wrk"), "-v"),
        "python": json.loads(subprocess.run([python, "-c", _INTERPRETER], capture_output=True, check=True).stdout),
    }


def processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def printed(program: str, option: str) -> str:
    """Returns the version that a program prints, on whichever output, and with whichever exit code."""
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


class OtherPrograms:
    """Counts the CPU time that neither this process nor those that it has started and waited for have used."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), busy_seconds(), own_seconds()

    def share(self) -> float:
        """Returns the part of all cores that others have used since the start, 0 to 1."""
        seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = busy_seconds() - self._busy - (own_seconds() - self._own)
        return max(0.0, others / seconds)


def busy_seconds() -> float:
    """The time that all cores were busy: user, nice, system, interrupts."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, irq, soft_irq = map(int, first[1:8])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    used: Mapping[int, resource.struct_rusage] = {
        who: resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    }
    return sum(one.ru_utime + one.ru_stime for one in used.values())
