"""What an upstream may send at most, counted after it has been unpacked."""

import zlib
from pathlib import Path

import pytest

from gateway.providers.openai import errors, model_list, provider
from tests.providers.openai.test_provider import ask
from tests.support.gateway import BEARER
from tests.support.reply import check_error
from tests.support.upstream import always, answer
from tests.support.wire import post, request

GZIP = b"Content-Encoding: gzip\r\n"
MODELS = request("GET", "/v1/models", [BEARER])


def compressed(body: bytes) -> bytes:
    return answer(zlib.compress(body, wbits=31), extra=GZIP)


async def test_a_list_of_models_that_unpacks_to_too_much(tmp_path: Path) -> None:
    body = b'{"data":[{"id":"m","x":"%s"}]}' % (b"0" * model_list.MAX_BYTES)
    reply, _ = await ask(tmp_path, always(compressed(body)), MODELS)
    check_error(reply, 502, "upstream_error", "upstream_invalid")


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0"])
async def test_a_list_of_models_with_too_many_values(tmp_path: Path, value: bytes) -> None:
    body = b'{"data":[{"id":"m","x":[%s]}]}' % b",".join([value] * model_list.MAX_VALUES)
    reply, _ = await ask(tmp_path, always(answer(body)), MODELS)
    check_error(reply, 502, "upstream_error", "upstream_invalid")


async def test_a_long_list_of_models(tmp_path: Path) -> None:
    models = b",".join(b'{"id":"m%d","object":"model","created":0,"owned_by":"x"}' % number for number in range(10_000))
    reply, _ = await ask(tmp_path, always(compressed(b'{"data":[%s]}' % models)), MODELS)
    assert len(reply.json()["data"]) == 10_000


async def test_a_response_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "MAX_UNPACKED_BYTES", 100_000)
    body = b'{"x":"%s"}' % (b"0" * 100_000)
    reply, _ = await ask(tmp_path, always(compressed(body)), post())
    check_error(reply, 502, "upstream_error", "upstream_invalid")
    reply, _ = await ask(tmp_path, always(answer(body)), post())
    assert (reply.status, reply.body) == (200, body)


async def test_a_huge_error_in_a_response_is_not_decoded(tmp_path: Path) -> None:
    body = b'{"error":[%s]}' % b",".join([b"[]"] * errors.MAX_ERROR_BYTES)
    reply, _ = await ask(tmp_path, always(answer(body)), post())
    assert "too large to show" in check_error(reply, 502, "upstream_error", "upstream_error")["message"]
