"""Other gateways: which versions are measured, and how each is started with its key check on."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Command, free_port
from bench.servers import Place

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER / "requirements"


@dataclass(frozen=True)
class Peer:
    """A gateway that is installed from the package index, in an environment of its own below ``bench/.peers``."""

    name: str
    start: Callable[[str, int, str], Sequence[str]]
    """Takes the upstream's URL, the port and the key; returns the arguments of the program of the peer's name."""

    @property
    def folder(self) -> Path:
        return FOLDER / ".peers" / self.name

    @property
    def requirements(self) -> Path:
        return REQUIREMENTS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """The version that is pinned."""
        lines = self.requirements.read_text().splitlines()
        return next(line.partition("==")[2] for line in lines if line.startswith(f"{self.name}=="))

    @property
    def is_installed(self) -> bool:
        """Whether the pinned version is there, and not another one."""
        return self.stamp.exists() and self.stamp.read_text() == self.requirements.read_text()

    @property
    def stamp(self) -> Path:
        return self.folder / "installed.txt"

    def command(self, place: Place, upstream: str, key: str) -> Command:
        port = free_port()
        arguments = [str(self.folder / "bin" / self.name), *self.start(upstream, port, key)]
        environment = place.environment(PYTHONPATH="")
        return Command(self.name, arguments, port, place.folder, environment, "/health")


def _router_arguments(upstream: str, port: int, key: str) -> Sequence[str]:
    where = ["--worker-urls", upstream, "--host", "127.0.0.1", "--port", str(port)]
    metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    return [*where, "--policy", "round_robin", "--api-key", key, "--log-level", "error", *metrics]


def _launched(upstream: str, port: int, key: str) -> Sequence[str]:
    return ["launch", *_router_arguments(upstream, port, key)]


PEERS = (
    Peer("vllm-router", _router_arguments),
    Peer("sglang-router", _launched),
    Peer("smg", _launched),
)


def installed() -> list[Peer]:
    return [peer for peer in PEERS if peer.is_installed]


def tell_missing() -> list[str]:
    """Returns the names of the peers that are not installed, and says on standard error how to install them."""
    missing = [peer.name for peer in PEERS if not peer.is_installed]
    if missing:
        print(f"bench: not installed, so left out: {', '.join(missing)}; `make bench-peers` installs", file=sys.stderr)
    return missing


def install(peer: Peer) -> None:
    """Creates the environment anew. Raises BenchError where the package index does not give the pinned versions."""
    run([sys.executable, "-m", "venv", "--clear", str(peer.folder)])
    pip = [str(peer.folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--only-binary", ":all:", "-r", str(peer.requirements)])
    peer.stamp.write_text(peer.requirements.read_text())


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with code {done.returncode}")


def main() -> int:
    """Installs what is missing. A peer that cannot be installed here is told, and the others are installed."""
    status = 0
    for peer in PEERS:
        if peer.is_installed:
            continue
        try:
            install(peer)
            print(f"{peer.name} {peer.version} installed")
        except BenchError as error:
            print(f"bench: {peer.name} is not installed: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
