"""Secrets that are watched: sent in every form, into every kind of failure, at the most talkative log level, and then looked
for wherever the gateway writes anything. What is shown by design is a secret's first 14 characters, and mask's few.

Full length: GATEWAY_TEST_CAMPAIGN=full, every form on every path; else every form on some, every path by some.
"""

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.tokens import secret
from gateway.tokens.changes import TokenSpec
from tests.campaigns.canary import (
    Collected,
    Sender,
    ask_while_draining,
    break_the_store,
    editor_at,
    make_secrets,
    misbehave,
    plant_bug,
    settings_for,
    take_command_lines,
    take_files,
    take_upstream,
)
from tests.campaigns.canary_requests import (
    ALL_STATUSES,
    COMPLETIONS,
    ENVIRONMENT,
    FAILING_REQUESTS,
    FOREIGN,
    FULL,
    IMPORTED,
    JSON,
    ODD_KEYS,
    PLAIN_KEYS,
    RUNS,
    UPSTREAM,
    FailingRequest,
    Form,
    Secrets,
    all_requests,
    bad_http,
    forms,
    own_text,
    public_bodies,
)
from tests.campaigns.life import TOKENS
from tests.support.gateway import ROOT, gateway_process, token_manager
from tests.support.tokens import BY, freegpt
from tests.support.upstream import running_upstream
from tests.support.wire import request

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


async def provoke(sender: Sender, secrets: Secrets, folder: Path) -> None:
    """All of it but clients' own text. ``secrets`` gets those that are made on the way."""
    created = await sender.create(ENVIRONMENT, "/api/tokens", b'{"name":"by HTTP"}')
    rotated = await sender.create(ENVIRONMENT, f"/api/tokens/{created['id']}/rotate", b'{"grace":"1h"}')
    user_key = await sender.create(ENVIRONMENT, "/api/user/key", b'{"email":"ann@example.com"}')
    secrets |= {"created": created["token"], "rotated": rotated["token"], "user key": user_key["key"]}
    await sender.send_all(all_requests(secrets))
    take_command_lines(sender.collected)
    for text in secrets.values():
        await sender.send_all(bad_http(text))
        await sender.send_all(public_bodies(text))
    await break_the_store(sender, secrets, folder)


@pytest.mark.parametrize(("backend", "log_format"), RUNS if FULL else RUNS[:2])
async def test_no_secret_is_found_anywhere(tmp_path: Path, backend: str, log_format: str) -> None:
    secrets, collected = make_secrets(tmp_path), Collected()
    maskable = dict(secrets) | {"environment": ENVIRONMENT, "upstream key": UPSTREAM}
    secrets = {"environment": ENVIRONMENT, **secrets, "foreign": FOREIGN, "imported": IMPORTED}
    plant_bug(tmp_path)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream(misbehave))
        values = {**settings_for(tmp_path, upstream, ENVIRONMENT, UPSTREAM), "GATEWAY_BACKEND": backend}
        with gateway_process(tmp_path, log_format=log_format, **values) as gateway:
            sender = Sender(gateway, collected)
            await provoke(sender, secrets, tmp_path)
            take_upstream(collected, upstream.requests)
            for text in list(maskable.values())[:: 1 if FULL else 4]:
                await sender.send_all(own_text(text, ENVIRONMENT))
            metrics = FailingRequest("GET", "/metrics").with_form(Form([("api-key", ENVIRONMENT)]))
            collected.add("metrics", await sender.send(metrics))
            await stack.aclose()  # from now on the upstream cannot be reached
            await sender.send_all(
                FAILING_REQUESTS[14].with_form(Form([("api-key", text)])) for text in secrets.values()
            )
            await ask_while_draining(sender, secrets)
            gateway.stop()
    take_files(collected, tmp_path)
    secrets["upstream key"] = UPSTREAM
    told = ", ".join(f"{number} × {status}" for status, number in sorted(collected.statuses.items()))
    asked = f"{len(secrets)} secrets, {collected.statuses.total()} requests ({told})"
    searched = f"{collected.size} bytes searched in {len(collected.places)} places"
    print(
        f"\ncampaign canaries, {log_format}, {backend}: {asked}, {len(upstream.requests)} of them upstream, {searched}"
    )
    check_that_it_happened(collected, backend)
    collected.check(secrets, but=["upstream key, plain in upstream"])


def check_that_it_happened(collected: Collected, backend: str) -> None:
    """A campaign whose requests nobody answers finds nothing, either."""
    more = {"504"} if backend == "openai" else set()
    less = {"502"} if backend == "bug" else set()
    assert (ALL_STATUSES | more) - less <= collected.statuses.keys()
    assert "none" not in collected.statuses
    assert len(collected.places["file gateway.log"]) > 60 * collected.statuses.total(), "each request has its line"
    assert backend == "bug" or len(collected.places["upstream"]) > 10_000


async def test_bodies_that_stand_still_tell_no_secret(tmp_path: Path) -> None:
    secrets, collected = make_secrets(tmp_path), Collected()
    plant_bug(tmp_path)
    values = {"GATEWAY_BACKEND": "bug", "GATEWAY_LOG_LEVEL": "debug", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with gateway_process(tmp_path, **values) as gateway:
        sender = Sender(gateway, collected)
        length = ("Content-Length", "500")
        await sender.send_all(
            request("POST", COMPLETIONS, [("api-key", text), JSON, length]) + b'{"model":"%s' % text.encode()
            for text in secrets.values()
        )
        gateway.stop()
    take_files(collected, tmp_path)
    assert collected.statuses["408"] >= 4
    collected.check(secrets)


@pytest.mark.parametrize("keys", [PLAIN_KEYS, ODD_KEYS], ids=["plain", "odd"])
@pytest.mark.parametrize("log_format", ["json", "console"] if FULL else ["json"])
async def test_configured_secrets_are_masked_however_they_are_spelt(
    tmp_path: Path, log_format: str, keys: tuple[str, str]
) -> None:
    """Of no known form, perhaps with quotes, backslashes and what has to be percent-encoded; cut off by the log in the middle;
    quoted by the upstream that it was shown to."""
    environment, key = keys
    secrets, collected = {"environment": environment, "upstream key": key}, Collected()
    async with running_upstream(misbehave) as upstream:
        values = settings_for(tmp_path, upstream, environment, key)
        with gateway_process(tmp_path, log_format=log_format, **values) as gateway:
            sender = Sender(gateway, collected)
            await sender.send_all(
                failing.with_form(form) for form in forms(environment) for failing in FAILING_REQUESTS
            )
            collected.places["answers to credentials"] = collected.places.pop("answers")
            for text in secrets.values():
                await sender.send_all(own_text(text, environment))
            gateway.stop()
    take_files(collected, tmp_path)
    collected.check(secrets)


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_secret_for_a_name_is_masked_in_the_log(tmp_path: Path, log_format: str) -> None:
    """A name is the text of whoever gave it: it stands in the file and in lists as it was given. A log goes to other people."""
    service, collected = editor_at(tmp_path), Collected()
    pasted = service.create(BY, TokenSpec(name="living")).secret
    named = service.create(BY, TokenSpec(name=pasted)).secret
    with gateway_process(tmp_path, log_format=log_format, GATEWAY_LOG_LEVEL="debug") as gateway:
        for target in ("/api/me", "/nowhere", "/v1/models"):
            await Sender(gateway, Collected()).send(FailingRequest("GET", target).with_form(Form([("api-key", named)])))
        gateway.stop()
    collected.add("log", gateway.log.read_bytes())
    collected.check({"as a name": pasted, "named": named})


DAMAGES = (
    '{%(text)s:%(item)s,%(text)s:%(item)s}', '{%(text)s:{"name":"x","active":1}}', '{%(text)s:', '[%(text)s]',
    '{%(text)s:{"name":"","created_at":"x","last_used":null,"active":true}}', '{"version":%(text)s,"tokens":[]}',
    '{"version":1,"tokens":[{"id":%(text)s}]}', '{"version":1,"tokens":[{%(text)s:1}]}',
)  # fmt: skip


async def test_a_damaged_file_tells_no_secret(tmp_path: Path) -> None:
    """FreeGPT's files hold secrets in clear, also short ones of people's own: whoever fixes one by hand makes mistakes."""
    secrets, collected = {"long": "d" + secret.generate()[4:], "short": "dshortsecret18abcd"}, Collected()
    with gateway_process(tmp_path, FREEGPT_API_KEY=ENVIRONMENT, GATEWAY_LOG_LEVEL="debug") as gateway:
        sender = Sender(gateway, collected)
        for number, text in enumerate(secrets.values()):
            for damage in DAMAGES:
                item = json.dumps(next(iter(freegpt(text).values())))
                (tmp_path / TOKENS).write_text(damage % {"text": json.dumps(text), "item": item})
                create = FailingRequest("POST", "/api/tokens", b'{"name":"x"}').with_form(
                    Form([("api-key", ENVIRONMENT)])
                )
                assert (await sender.send(create))[9:12] == b"503", (number, damage)
                await sender.send(FailingRequest("GET", "/readyz").with_form(Form([])))
                said = token_manager(tmp_path, "list")
                collected.add("command line", said.stdout + said.stderr)
        gateway.stop()
    collected.add("log", gateway.log.read_bytes())
    collected.check(secrets)


def test_the_command_line_shows_a_secret_once(tmp_path: Path) -> None:
    collected, secrets = Collected(), {}
    for name, command in {"created": ["create", "by hand"], "rotated": ["rotate", "by hand", "--grace", "1h"]}.items():
        said = token_manager(tmp_path, *command, "--json")
        secrets[name] = json.loads(said.stdout)["token"]
        assert said.stdout.count(secrets[name].encode()) == 1
        collected.add("complaints", said.stderr)
    foreign = token_manager(tmp_path, "import", "-", stdin=json.dumps(freegpt(FOREIGN)).encode())
    collected.add("import", foreign.stdout + foreign.stderr)
    secrets["imported"] = FOREIGN
    for command in ("list", "list --json", "show tok_none", "usage", "audit", "audit --json", "audit --verify"):
        said = token_manager(tmp_path, *command.split())
        collected.add(command, said.stdout + said.stderr)
    for text in secrets.values():
        said = token_manager(tmp_path, "verify", "--json", stdin=text.encode())
        assert said.returncode == 0
        collected.add("verify", said.stdout + said.stderr)
    take_files(collected, tmp_path)
    collected.check(secrets)
