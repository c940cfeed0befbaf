"""What a transcription costs, by the second or by tokens of sound, and that a budget bounds it whatever the upstream reports."""

from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.limits.config import read_limits
from gateway.tokens.changes import TokenSpec
from tests.core.test_sound_length import wav
from tests.http.test_form_reader import FORM, form
from tests.support.gateway import KEY, Running
from tests.support.reply import check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import Behaviour, always, answer
from tests.support.wire import gateway_before

PATH = "/v1/audio/transcriptions"
PRICES = """
[prices."second"]
input = 0
output = 0
second = 0.01

[prices."token"]
input = 0
output = 1
audio_input = 10
context_window = 16000

[prices."image"]
input = 0
output = 0
image = 0.5
"""


def settings(folder: Path) -> dict[str, str]:
    prices = folder / "gateway.toml"
    prices.write_text(PRICES)
    return {"GATEWAY_CONFIG": str(prices)}


def key(folder: Path, budget: str) -> tuple[str, str]:
    limits = read_limits({"budget": budget})
    service = TokenEditor(folder / "api_tokens.json", SteadyClock())
    return "api-key", service.create(BY, TokenSpec(name="limited", limits=limits)).secret


async def spent(gateway: Running, credential: tuple[str, str]) -> float:
    (limit,) = (await gateway.get("/api/me", credential)).json()["left"]
    return float(limit["used"])


NINE_SECONDS = wav(9)
UNKNOWN = bytes(20_000)
"""Ten seconds at 16 kbit/s."""


@pytest.mark.parametrize(("model", "file", "body", "kind", "cost"), [
    ("second", NINE_SECONDS, b'{"text":"x","usage":{"type":"duration","seconds":5}}', "application/json", 0.05),
    ("second", NINE_SECONDS, b'{"text":"x","task":"transcribe","duration":4.2,"segments":[]}', "application/json", 0.05),
    ("second", NINE_SECONDS, b'{"text":"x","duration":"4.2"}', "application/json", 0.05),
    ("second", NINE_SECONDS, b'{"text":"x"}', "application/json", 0.09),
    ("second", NINE_SECONDS, b"x", "text/plain", 0.09),
    ("second", UNKNOWN, b"1\n00:00:00 --> 00:00:09\nx\n", "application/x-subrip", 0.10),
    ("second", NINE_SECONDS, b'{"text":"x","usage":{"input_tokens":9,"output_tokens":1}}', "application/json", 0.09),
    ("token", NINE_SECONDS, b'{"text":"x","usage":{"type":"tokens","input_tokens":100,"output_tokens":0,'
     b'"input_token_details":{"audio_tokens":100}}}', "application/json", 0.001),
    ("token", NINE_SECONDS, b'{"text":"x","usage":{"type":"duration","seconds":5}}', "application/json", 0.001),
    ("token", NINE_SECONDS, b"", "text/plain", 0.0018),
])  # fmt: skip
async def test_a_transcription_is_charged_by_what_is_known(
    tmp_path: Path, model: str, file: bytes, body: bytes, kind: str, cost: float
) -> None:
    credential = key(tmp_path, "5")
    async with gateway_before(always(answer(body, content_type=kind)), tmp_path, **settings(tmp_path)) as (_, gateway):
        reply = await gateway.request("POST", PATH, [credential, FORM], form(("model", model), file=file))
        assert reply.status == 200
        assert await spent(gateway, credential) == pytest.approx(cost)


async def test_a_budget_bounds_transcriptions_that_nothing_is_reported_of(tmp_path: Path) -> None:
    credential = key(tmp_path, "0.20")
    async with gateway_before(text(), tmp_path, **settings(tmp_path)) as (upstream, gateway):
        data = form(("model", "second"), file=NINE_SECONDS)
        replies = [await gateway.request("POST", PATH, [credential, FORM], data) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 429, 429]
        assert len(upstream.requests) == 2


async def test_sound_that_the_upstream_fetches_itself_has_no_known_length(tmp_path: Path) -> None:
    credential = key(tmp_path, "5")
    data = form(("model", "second"), ("url", "https://example.com/a.mp3"))
    without_file = b"--B\r\n" + data.split(b"--B\r\n", 2)[2]
    assert b"example.com" in without_file
    async with gateway_before(text(), tmp_path, **settings(tmp_path)) as (upstream, gateway):
        reply = await gateway.request("POST", PATH, [credential, FORM], without_file)
        error = check_error(reply, 429, "insufficient_quota", "insufficient_quota")
        assert "length" in error["message"]
        assert upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/variations"])
async def test_images_that_are_edited_cost_what_images_cost(tmp_path: Path, path: str) -> None:
    credential = key(tmp_path, "1.2")
    made = always(answer(b'{"created":1,"data":[{"b64_json":""},{"b64_json":""}]}'))
    async with gateway_before(made, tmp_path, **settings(tmp_path)) as (_, gateway):
        data = form(("model", "image"), ("n", "2"))
        replies = [await gateway.request("POST", path, [credential, FORM], data) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 429]
        assert await spent(gateway, credential) == pytest.approx(1)


def text() -> Behaviour:
    return always(answer(b"hello", content_type="text/plain"))


async def test_without_limits_the_ledger_has_the_cost(tmp_path: Path) -> None:
    async with gateway_before(text(), tmp_path, **settings(tmp_path)) as (_, gateway):
        bearer = ("Authorization", f"Bearer {KEY}")
        await gateway.request("POST", PATH, [bearer, FORM], form(("model", "second"), file=NINE_SECONDS))
        await gateway.flush_usage()
        total = (await gateway.get("/api/usage", bearer)).json()["total"]
    assert (total["cost_usd"], total["estimated"]) == (0.09, 1)
