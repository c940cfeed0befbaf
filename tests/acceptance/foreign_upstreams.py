"""OpenAI-compatible servers that nobody in this project wrote, on free loopback ports.

`python foreign_upstreams.py llama` (or `litellm`) starts one by hand and prints how to reach it, until Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from installs import HERE, run, virtual_environment
from processes import free_port, server

# Not the key the clients hold: an answer then also shows that the gateway exchanged the one for the other.
UPSTREAM_KEY = "sk-acceptance-upstream-key"


@dataclass(frozen=True)
class Upstream:
    """Where a server is and what it serves.

    `skip` names the checks it can't pass behind any gateway either, `skip_direct` those it can't pass by itself;
    an entry is CHECK or, for one client, CLIENT:CHECK.
    """

    name: str
    base_url: str
    chat_model: str
    embedding_model: str
    skip: frozenset[str]
    skip_direct: frozenset[str]


ENGINES = frozenset({"engine_chat", "engine_chat_stream", "engine_completion", "engine_embedding"})


@contextmanager
def llama(folder: Path) -> Iterator[Upstream]:
    """llama-cpp-python's server with a tiny model of random weights."""
    python = virtual_environment("llama")
    model = folder / "tiny-random.gguf"
    run([str(python), str(HERE / "make_tiny_gguf.py"), str(model)], folder, {})
    port = free_port()
    # By default a second request cuts off the first one's stream and still says [DONE].
    options = {"interrupt_requests": "false", "n_ctx": "512", "n_threads": "1", "verbose": "false"}
    options |= {"model": str(model), "model_alias": "tiny-random", "embedding": "true"}
    options |= {"host": "127.0.0.1", "port": str(port), "api_key": UPSTREAM_KEY}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    url = f"http://127.0.0.1:{port}/v1"
    command = [str(python), "-m", "llama_cpp.server", *flags]
    with server(command, {}, url + "/models", 60, folder / "llama.log"):
        yield Upstream(
            name="llama",
            base_url=url,
            chat_model="tiny-random",
            embedding_model="tiny-random",
            # It takes stream_options and never sends the usage they ask for.
            skip=frozenset({"chat_stream_usage"}),
            # Its refusal says {"detail": …}; that client reads only {"error": …} as one.
            skip_direct=ENGINES | {"openai_028:wrong_key"},
        )


@contextmanager
def litellm(folder: Path) -> Iterator[Upstream]:
    """LiteLLM's proxy, answering from its configuration."""
    python = virtual_environment("litellm")
    port = free_port()
    command = [str(python.with_name("litellm")), "--config", str(HERE / "litellm_config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {
        "LITELLM_MASTER_KEY": UPSTREAM_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
    }
    url = f"http://127.0.0.1:{port}"
    with server(command, environment, url + "/health/liveliness", 120, folder / "litellm.log"):
        yield Upstream(
            name="litellm",
            base_url=url + "/v1",
            chat_model="mock-chat",
            embedding_model="mock-embedding",
            skip=frozenset(),
            # Without a database it answers 400 "No connected db." to a key it does not know.
            skip_direct=ENGINES | {"wrong_key"},
        )


UPSTREAMS: dict[str, Callable[[Path], AbstractContextManager[Upstream]]] = {"litellm": litellm, "llama": llama}


def serve_by_hand(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="acceptance-") as folder, UPSTREAMS[name](Path(folder)) as upstream:
        print(f"OPENAI_BASE_URL={upstream.base_url} OPENAI_API_KEY={UPSTREAM_KEY} \\")
        print(f"MODEL={upstream.chat_model} EMBEDDING_MODEL={upstream.embedding_model}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in UPSTREAMS:
        sys.exit(f"usage: foreign_upstreams.py {'|'.join(UPSTREAMS)}")
    # A plain SIGTERM would end this program and leave the server running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve_by_hand(sys.argv[1])
