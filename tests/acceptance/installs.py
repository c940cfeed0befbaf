"""The clients and servers at the versions in requirements/, installed once under .cache/acceptance/."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
CACHE = REPO / ".cache" / "acceptance"
REQUIREMENTS = HERE / "requirements"
INSTALL_SECONDS = 1800

# The model is tiny, so the time goes into compiling: no optimizer, and nothing but the library itself.
LLAMA_CMAKE = (
    "-DCMAKE_CXX_FLAGS_RELEASE=-O0",
    "-DCMAKE_C_FLAGS_RELEASE=-O1",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DGGML_LLAMAFILE=OFF",
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    f"-DCMAKE_PROJECT_INCLUDE={HERE / 'skip_llama_common.cmake'}",
)
LLAMA_BUILD = {
    "CMAKE_ARGS": shlex.join(LLAMA_CMAKE),
    "SKBUILD_BUILD_TARGETS": "llama",
    "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
}


class InstallError(RuntimeError):
    """A program is missing or an installation failed."""


def need_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise InstallError(f"{name} is not on this machine; the acceptance run needs it")
    return found


def run(command: Sequence[str], directory: Path, extra: Mapping[str, str]) -> None:
    """Politely, since compiling takes minutes, and silently, unless it fails."""
    polite = [need_program("nice"), "-n", "10", *command]
    done = subprocess.run(
        polite,
        cwd=directory,
        env={**os.environ, **extra},
        timeout=INSTALL_SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-60:])
        raise InstallError(f"{shlex.join(command)} failed:\n{last}")


def fingerprint(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare_cache() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    # The folder ignores itself, whatever the repository's own list says.
    (CACHE / ".gitignore").write_text("*\n")


def is_current(home: Path, mark: str) -> bool:
    stamp = home / "installed"
    return stamp.is_file() and stamp.read_text() == mark


def report(name: str, started: float) -> None:
    print(f"installed {name} in {time.monotonic() - started:.1f} s", flush=True)


def virtual_environment(name: str) -> Path:
    """The Python of a virtual environment that holds requirements/NAME.txt."""
    requirements = REQUIREMENTS / f"{name}.txt"
    home = CACHE / f"venv-{name}"
    python = home / "bin" / "python"
    mark = fingerprint([requirements])
    if is_current(home, mark):
        return python
    started = time.monotonic()
    prepare_cache()
    run([sys.executable, "-m", "venv", "--clear", str(home)], CACHE, {})
    install = ["-m", "pip", "install", "--quiet", "--no-input", "--requirement", str(requirements)]
    run([str(python), *install], CACHE, LLAMA_BUILD if name == "llama" else {})
    (home / "installed").write_text(mark)
    report(name, started)
    return python


def node_project() -> Path:
    """A folder whose node_modules holds requirements/package-lock.json."""
    home = CACHE / "node"
    files = [REQUIREMENTS / "package.json", REQUIREMENTS / "package-lock.json"]
    mark = fingerprint(files)
    if is_current(home, mark):
        return home
    started = time.monotonic()
    prepare_cache()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for file in files:
        shutil.copy(file, home)
    run([need_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], home, {})
    (home / "installed").write_text(mark)
    report("openai_node", started)
    return home
