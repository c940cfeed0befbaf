"""Uploads in forms: which tokens may send which, and what the upstream gets."""

import tempfile
from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.limits.config import read_limits
from gateway.tokens.changes import TokenSpec
from tests.support.gateway import BEARER, KEY, StartGateway
from tests.support.reply import check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import Received, StartUpstream

INVALID = "invalid_request_error"
FORM = ("Content-Type", "multipart/form-data; boundary=B")
LARGE = bytes(range(256)) * 3000
PATHS = ["audio/transcriptions", "audio/translations", "images/edits", "images/variations"]


def form(*fields: tuple[str, str], file: bytes = b"\x00\xff") -> bytes:
    """The file stands before the fields, as in forms of browsers and of openai-node."""
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields]
    return head + file + b"\r\n" + "".join(parts).encode() + b"--B--\r\n"


def model_of(received: Received) -> bytes:
    """Returns what follows the head of the part ``model``, which must be there once."""
    _, found, rest = received.body.partition(b'name="model"\r\n\r\n')
    assert found
    assert received.body.count(b'"model"') == 1
    return rest.partition(b"\r\n")[0]


def limited(tmp_path: Path, models: tuple[str, ...] | None = None, budget: str | None = None) -> tuple[str, str]:
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    limits = None if budget is None else read_limits({"budget": budget})
    return "api-key", service.create(BY, TokenSpec(name="limited", models=models, limits=limits)).secret


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("file", [b"\x00\xff", LARGE], ids=["small", "large"])
async def test_a_token_with_models_sends_forms(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream, path: str, file: bytes
) -> None:
    key = limited(tmp_path, models=("m", "alias"))
    upstream = await start_upstream(b'{"text":"hello"}')
    settings = {"GATEWAY_UPSTREAM_URL": upstream.url, "GATEWAY_MODEL_ALIASES": "alias=real"}
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, **settings)
    for model, sent in (("m", b"m"), ("alias", b"real")):
        data = form(("model", model), ("n", "2"), ("timestamp_granularities[]", "word"), file=file)
        assert (await gateway.request("POST", f"/v1/{path}", [key, FORM], data)).status == 200
        received = upstream.requests[-1]
        assert (received.header("Content-Length"), model_of(received)) == (str(len(received.body)), sent)
        assert file in received.body
        assert b'name="timestamp_granularities[]"\r\n\r\nword\r\n' in received.body
    refused = await gateway.request("POST", f"/v1/{path}", [key, FORM], form(("model", "other"), file=file))
    check_error(refused, 404, INVALID, "model_not_found")
    nothing = await gateway.request("POST", f"/v1/{path}", [key, FORM], form(file=file))
    check_error(nothing, 400, INVALID, "missing_required_parameter")
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (("model", "other"), 400), (("Model", "other"), 400), (("model[]", "other"), 400), (("_charset_", "utf-16"), 400),
        (("deployment", "other"), 403), (("extra_body", '{"model":"other"}'), 403), (("options[model]", "other"), 403),
        (("options", '{"model":"other"}'), 403), (("fallbacks[]", "other"), 403), (("n", "0"), 400), (("n", "x"), 400),
        (("custom_llm_provider", "x"), 403), (("litellm.model", "other"), 403),
    ],
)  # fmt: skip
async def test_nothing_in_a_form_chooses_another_model(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream, field: tuple[str, str], status: int
) -> None:
    key = limited(tmp_path, models=("m",))
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.request("POST", "/v1/images/edits", [key, FORM], form(("model", "m"), field))
    assert reply.status == status, reply
    assert not upstream.requests


async def test_files_need_no_model(tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    key = limited(tmp_path, models=("m",), budget="1")
    upstream = await start_upstream(b'{"id":"file-1","object":"file"}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    assert (await gateway.request("POST", "/v1/files", [key, FORM], form(("purpose", "user_data")))).status == 200
    json = ("Content-Type", "application/json")
    upload = b'{"purpose":"user_data","filename":"a","bytes":1,"mime_type":"text/plain"}'
    assert (await gateway.request("POST", "/v1/uploads", [key, json], upload)).status == 200
    for path in ("/v1/uploads/file-1/parts", "/v1/uploads/file-1/complete"):
        kind, body = (FORM, form()) if path.endswith("parts") else (json, b'{"part_ids":[]}')
        assert (await gateway.request("POST", path, [key, kind], body)).status == 200
    assert len(upstream.requests) == 4
    for field in (("target_model_names", "other"), ("custom_llm_provider", "x")):
        reply = await gateway.request("POST", "/v1/files", [key, FORM], form(("purpose", "x"), field))
        check_error(reply, 403, "permission_error", "insufficient_permissions")
    reply = await gateway.request("POST", "/v1/files", [key, json], b'{"target_model_names":"other"}')
    check_error(reply, 403, "permission_error", "insufficient_permissions")
    reply = await gateway.request("POST", "/v1/batches", [key, json], b'{"input_file_id":"file-1"}')
    assert reply.status in (400, 403, 429)


async def test_a_budget_pays_a_transcription(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    key = limited(tmp_path, budget="0.015")
    prices = tmp_path / "gateway.toml"
    prices.write_text('[prices."m"]\ninput = 0\noutput = 0\nrequest = 0.01\n')
    upstream = await start_upstream(b'{"text":"hello"}')
    settings = {"GATEWAY_UPSTREAM_URL": upstream.url, "GATEWAY_CONFIG": str(prices)}
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, **settings)
    path = "/v1/audio/transcriptions"
    unknown = await gateway.request("POST", path, [key, FORM], form(("model", "nobody-knows-what-it-costs")))
    check_error(unknown, 429, "insufficient_quota", "insufficient_quota")
    replies = [await gateway.request("POST", path, [key, FORM], form(("model", "m"))) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    assert len(upstream.requests) == 1


async def test_an_alias_holds_in_forms_for_everybody(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream = await start_upstream(b'{"text":"hello"}')
    settings = {"GATEWAY_UPSTREAM_URL": upstream.url, "GATEWAY_MODEL_ALIASES": "alias=real"}
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, **settings)
    for path in ("/v1/audio/transcriptions", "/openai/deployments/alias/audio/transcriptions?api-version=1"):
        data = form(("model", "alias" if path.startswith("/v1") else "another"))
        assert (await gateway.request("POST", path, [BEARER, FORM], data)).status == 200
    assert (await gateway.request("POST", "/v1/images/edits", [BEARER, FORM], form())).status == 200
    assert [model_of(one) for one in upstream.requests[:2]] == [b"real", b"real"]
    assert [one.target for one in upstream.requests] == ["/v1/audio/transcriptions"] * 2 + ["/v1/images/edits"]
    twice = form(("model", "alias"), ("model", "other"))
    check_error(await gateway.request("POST", path, [BEARER, FORM], twice), 400, INVALID, "duplicate_key")


async def test_without_space_for_a_large_form(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    data = form(("model", "m"), file=LARGE)
    reply = await gateway.request("POST", "/v1/audio/transcriptions", [BEARER, FORM], data)
    check_error(reply, 503, "server_error", "store_unavailable")
