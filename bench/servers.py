"""What is started: two upstreams, relay, gateway; each a `Command`, none with the settings of this user."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.payloads import chat_answer, models_answer
from bench.processes import BenchError, Command, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
KEY = "bench-key-that-opens-nothing-0123456789"
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light"}

# One process in the foreground that writes into the run's folder only: a system nginx is not touched.
NGINX_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = /v1/chat/completions {{ return 200 '{answer}'; }}
        location = /v1/models {{ return 200 '{models}'; }}
        location = /healthz {{ return 200 '{{}}'; }}
        location = /health {{ return 200 '{{}}'; }}
    }}
}}
"""


KEY_MAP_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx-key-map-{port}.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/nginx-key-map-{port}.access.log;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    map_hash_bucket_size 256;
    client_body_buffer_size 256k;
    map $http_authorization $is_known {{ default 0; "Bearer {token}" 1; }}
    upstream model {{ server {upstream}; keepalive 200; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = /healthz {{ return 200 '{{}}'; }}
        location / {{
            if ($is_known = 0) {{ return 401; }}
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Place:
    """Where a run happens: its folder, the interpreter of everything in Python, the two cores."""

    folder: Path
    python: Path
    server_core: int
    load_core: int

    def environment(self, **more: str) -> dict[str, str]:
        """Made from nothing, so that no setting of the person who runs this reaches what is measured."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            **more,
        }


def find_program(name: str) -> str:
    # Debian puts nginx where only root's PATH looks.
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if found is None:
        raise BenchError(f"{name} is missing; install the Debian package {PACKAGES[name]}")
    return found


def nginx(place: Place) -> Command:
    port = free_port()
    config = place.folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=place.folder, port=port, answer=chat_answer(), models=models_answer()))
    arguments = [find_program("nginx"), "-e", "stderr", "-p", f"{place.folder}/", "-c", str(config)]
    return Command("direct", arguments, port, place.folder, place.environment())


def fixed_upstream(place: Place, answer: str) -> Command:
    port = free_port()
    body = place.folder / f"answer-{port}.json"
    body.write_text(answer)
    arguments = [str(place.python), "-m", "bench.fixed_upstream", "--port", str(port), "--body", str(body)]
    return Command("direct", arguments, port, place.folder, place.environment())


def nginx_key_map(place: Place, upstream: str, token: str) -> Command:
    """nginx with one worker and a map of keys before the upstream: the limit of what a server that checks keys can do."""
    port = free_port()
    config = place.folder / f"nginx-key-map-{port}.conf"
    address = upstream.removeprefix("http://")
    config.write_text(KEY_MAP_CONFIG.format(folder=place.folder, port=port, upstream=address, token=token))
    arguments = [find_program("nginx"), "-e", "stderr", "-p", f"{place.folder}/", "-c", str(config)]
    return Command("nginx", arguments, port, place.folder, place.environment())


def stream_upstream(place: Place, chunks: int, interval: float) -> Command:
    port = free_port()
    arguments = [str(place.python), "-m", "bench.stream_upstream", "--port", str(port)]
    arguments += ["--chunks", str(chunks), "--interval", str(interval)]
    return Command("stream-upstream", arguments, port, place.folder, place.environment())


def relay(place: Place, upstream: str, name: str) -> Command:
    port = free_port()
    script = Path(__file__).with_name("bare_relay.py")
    arguments = [str(place.python), str(script), "--port", str(port), "--upstream", upstream]
    return Command(name, arguments, port, place.folder, place.environment())


def gateway(place: Place, upstream: str, name: str) -> Command:
    port = free_port()
    environment = place.environment(
        **token_settings(place), GATEWAY_PORT=str(port), GATEWAY_UPSTREAM_URL=f"{upstream}/v1"
    )
    arguments = [str(place.python), "-m", "gateway"]
    return Command(name, arguments, port, place.folder, environment)


def token_settings(place: Place) -> Mapping[str, str]:
    return {
        "FREEGPT_API_KEY": KEY,
        "GATEWAY_TOKENS_FILE": str(place.folder / "api_tokens.json"),
        "GATEWAY_DATA_DIR": str(place.folder / "data"),
    }


LIMITS = ("--rpm", "100000000", "--tpm", "1000000000", "--max-parallel", "10000", "--budget", "100000/month")
"""All four, none of which a run comes near to."""


def create_token(place: Place) -> str:
    """A stored token with all limits: it is admitted and settled, metered, priced and recorded."""
    command = [str(place.python), str(REPOSITORY / "token_manager.py"), "create", "bench", "--json", *LIMITS]
    environment = place.environment(**token_settings(place))
    done = subprocess.run(
        command, cwd=place.folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"token_manager.py create ended with code {done.returncode}:\n{done.stderr}")
    token: str = json.loads(done.stdout)["token"]
    return token


def list_tokens(place: Place) -> None:
    """A command of the token manager, from its start to its end."""
    command = [str(place.python), str(REPOSITORY / "token_manager.py"), "list", "--json"]
    environment = place.environment(**token_settings(place))
    subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, timeout=30, check=True)
