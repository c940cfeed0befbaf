"""Show that four real clients reach foreign OpenAI-compatible servers through the gateway.

    python tests/acceptance/run.py [--upstream litellm|llama|all] [--client NAME] [--direct]

It installs what it needs under .cache/acceptance/, starts a server and the gateway in front of it, runs each client
through it and prints what passed. `--direct` leaves the gateway out: it shows that clients and servers agree by themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from foreign_upstreams import UPSTREAM_KEY, UPSTREAMS, Upstream
from installs import HERE, REPO, InstallError, need_program, node_project, virtual_environment
from processes import NotReadyError, clean_environment, free_port, server, tail

CLIENT_KEY = "sk-acceptance-made-up-key"
CHAT_MODEL = "freegpt-4"
EMBEDDING_MODEL = "freegpt-embedding"
CLIENTS_FOLDER = HERE / "clients"
CLIENT_SECONDS = 180
GATEWAY_SECONDS = 30
PLAIN, STREAM = "chat", "chat_stream"


@dataclass(frozen=True)
class Target:
    """What a client is pointed at, and the checks it is told to leave out."""

    base_url: str
    key: str
    model: str
    embedding_model: str
    skip: frozenset[str]
    error_code: str = ""
    rate_key: str = ""
    poor_key: str = ""


@dataclass(frozen=True)
class Result:
    """What one client said about each check: ok, skip or FAIL; the output is kept for a failure."""

    client: str
    upstream: str
    exit_code: int
    output: str
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and self.count("ok") > 0 and self.count("FAIL") == 0

    def count(self, word: str) -> int:
        return list(self.checks.values()).count(word)


def python_client(name: str) -> list[str]:
    return [str(virtual_environment(name)), str(CLIENTS_FOLDER / f"{name}.py")]


def node_client() -> list[str]:
    # An ES module finds its packages from where it lies, so it has to lie beside node_modules.
    script = shutil.copy(CLIENTS_FOLDER / "openai_node.mjs", node_project())
    return [need_program("node"), str(script)]


def curl_client() -> list[str]:
    need_program("curl")
    return [need_program("bash"), str(CLIENTS_FOLDER / "curl.sh")]


CLIENTS: dict[str, Callable[[], list[str]]] = {
    "openai_current": lambda: python_client("openai_current"),
    "openai_028": lambda: python_client("openai_028"),
    "openai_node": node_client,
    "curl": curl_client,
}


@contextmanager
def gateway(upstream: Upstream, folder: Path) -> Iterator[Target]:
    """The gateway as a user runs it, in an empty folder and with nothing but an environment."""
    port = free_port()
    aliases = f"{CHAT_MODEL}={upstream.chat_model},{EMBEDDING_MODEL}={upstream.embedding_model}"
    environment = {
        "PYTHONPATH": str(REPO),
        "FREEGPT_API_KEY": CLIENT_KEY,
        "GATEWAY_PORT": str(port),
        "GATEWAY_UPSTREAM_URL": upstream.base_url,
        "GATEWAY_UPSTREAM_API_KEY": UPSTREAM_KEY,
        "GATEWAY_TOKENS_FILE": str(folder / "api_tokens.json"),
        "GATEWAY_MODEL_ALIASES": aliases,
    }
    python = REPO / ".venv" / "bin" / "python"
    if not python.is_file():
        raise InstallError("the gateway's .venv is missing: `make run` or `make test` makes it")
    keys = [
        token_with(python, environment, folder, name, *limit)
        for name, *limit in (("one a minute", "--rpm", "1"), ("poor", "--budget", "0.01"))
    ]
    url = f"http://127.0.0.1:{port}"
    with server([str(python), "-m", "gateway"], environment, url + "/healthz", GATEWAY_SECONDS, folder / "gateway.log"):
        yield Target(url + "/v1", CLIENT_KEY, CHAT_MODEL, EMBEDDING_MODEL, upstream.skip, "invalid_api_key", *keys)


def token_with(python: Path, environment: dict[str, str], folder: Path, name: str, *limit: str) -> str:
    """The secret of a new token. Nobody knows the price of what the upstream serves, so a budget lets nothing through."""
    command = [str(python), str(REPO / "token_manager.py"), "create", name, *limit, "--json"]
    done = subprocess.run(
        command, env=clean_environment(environment), cwd=folder, capture_output=True, check=True, timeout=CLIENT_SECONDS
    )
    return str(json.loads(done.stdout)["token"])


@contextmanager
def direct(upstream: Upstream) -> Iterator[Target]:
    skip = upstream.skip | upstream.skip_direct | {"refusals"}  # limits are the gateway's
    yield Target(upstream.base_url, UPSTREAM_KEY, upstream.chat_model, upstream.embedding_model, skip)


def left_out(skip: frozenset[str], client: str) -> str:
    """The entries that are for this client, as the clients take them."""
    split = [entry.rpartition(":") for entry in sorted(skip)]
    return ",".join(check for only, _, check in split if only in ("", client))


def read_checks(output: str) -> dict[str, str]:
    """`ok NAME`, `skip NAME` and `FAIL NAME: why` lines, by name."""
    words = [line.split() for line in output.splitlines() if line.startswith(("ok ", "skip ", "FAIL "))]
    return {name.rstrip(":"): word for word, name, *_ in words}


def run_client(name: str, upstream: str, target: Target) -> Result:
    environment = {
        "OPENAI_BASE_URL": target.base_url,
        "OPENAI_API_KEY": target.key,
        "MODEL": target.model,
        "EMBEDDING_MODEL": target.embedding_model,
        "SKIP": left_out(target.skip, name),
        "EXPECT_ERROR_CODE": target.error_code,
        "RATE_KEY": target.rate_key,
        "POOR_KEY": target.poor_key,
    }
    started = time.monotonic()
    try:
        done = subprocess.run(
            CLIENTS[name](),
            env=clean_environment(environment),
            timeout=CLIENT_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        result = Result(name, upstream, done.returncode, done.stdout, read_checks(done.stdout))
    except subprocess.TimeoutExpired:
        result = Result(name, upstream, 1, f"{name} did not end within {CLIENT_SECONDS} s")
    print(f"{name} against {upstream}: {time.monotonic() - started:.1f} s", flush=True)
    return result


def run_upstream(name: str, clients: Sequence[str], without_gateway: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="acceptance-") as place:
        folder = Path(place)
        with UPSTREAMS[name](folder) as upstream:
            route = direct(upstream) if without_gateway else gateway(upstream, folder)
            with route as target:
                results = [run_client(client, name, target) for client in clients]
        if not all(result.passed for result in results):
            for log in sorted(folder.glob("*.log")):
                print(f"--- the end of {log.name}\n{tail(log)}")
    return results


def install_clients(clients: Sequence[str]) -> None:
    """Before any server runs, so that a long installation can't be taken for a slow answer."""
    for client in clients:
        CLIENTS[client]()


def print_table(results: Sequence[Result]) -> None:
    row = "{:<16} {:<9} {:<6} {:<7} {}"
    print("\n" + row.format("client", "upstream", "plain", "stream", "all checks"))
    for result in results:
        said = [result.checks.get(check, "–") for check in (PLAIN, STREAM)]
        counts = f"{result.count('ok')} ok, {result.count('FAIL')} failed"
        skipped = [check for check, word in result.checks.items() if word == "skip"]
        note = f", left out: {' '.join(skipped)}" if skipped else ""
        print(row.format(result.client, result.upstream, *said, counts + note))


def print_failures(results: Sequence[Result]) -> None:
    for result in results:
        if not result.passed:
            print(f"\n--- {result.client} against {result.upstream}, exit code {result.exit_code}\n{result.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run real clients through the gateway to foreign servers.")
    parser.add_argument("--upstream", choices=[*UPSTREAMS, "all"], default="all")
    parser.add_argument("--client", choices=list(CLIENTS), action="append", help="only this one; may be repeated")
    parser.add_argument("--direct", action="store_true", help="leave the gateway out")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    clients = arguments.client or list(CLIENTS)
    names = list(UPSTREAMS) if arguments.upstream == "all" else [arguments.upstream]
    # A plain SIGTERM would end this program and leave the servers running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        install_clients(clients)
        results = [result for name in names for result in run_upstream(name, clients, arguments.direct)]
    except (InstallError, NotReadyError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything started has been stopped", file=sys.stderr)
        return 130
    print_failures(results)
    print_table(results)
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
