"""Which backend answers, under which name of the model; without any HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.errors import ModelNotFound
from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse
from gateway.tokens.hierarchy import SecretMatch
from gateway.tokens.models import Role, TokenRecord
from tests.support.inference import World, world


class Recorder:
    """Keeps what it is sent, and answers with what it is given."""

    def __init__(self, name: str, *pieces: bytes, content_type: str = JSON) -> None:
        self.name, self.pieces, self.content_type = name, pieces, content_type
        self.requests: list[ProviderRequest] = []

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        body: Any = self.stream() if self.content_type != JSON else self.pieces[0]
        return ProviderResponse(200, self.content_type, body)

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def models(self) -> list[dict[str, Any]]:
        return [{"id": name, "object": "model", "created": 5, "owned_by": self.name} for name in ("real", "gpt-4o")]

    async def aclose(self) -> None: ...


def caller(models: tuple[str, ...] | None = None, prefix: str = "sk-abcdefghijk") -> Principal:
    record = TokenRecord(
        id="tok_1", name="t", prefix=prefix, hash="0" * 64, created_at=0, models=models, role=Role.MEMBER
    )
    return Principal("t", Role.MEMBER, SecretMatch(record, None))


def chat(model: str, body: bytes | None = None) -> ProviderRequest:
    return ProviderRequest("POST", "chat/completions", body=body or b'{"model":"%s"}' % model.encode(), model=model,
                          fields={"model": model})  # fmt: skip


def made(real: Recorder, **aliases: str) -> tuple[World, Recorder]:
    test = Recorder("echo", b'{"model":"alias"}')
    return world(real, test, aliases), test


async def test_the_name_is_changed_both_ways() -> None:
    real = Recorder("real", b'{"id":1, "model":"real"}')
    inference, _ = made(real, alias="real")
    answer = await inference.run(ENVIRONMENT_KEY, chat("alias"))
    assert real.requests[0].body == b'{"model":"real"}'
    assert (real.requests[0].model, real.requests[0].fields) == ("real", {"model": "real"})
    assert answer.body == b'{"id":1,"model":"alias"}'


@pytest.mark.parametrize(
    "said",
    [b"", b"not JSON real", b"[]", b'{"x":"real"}', b'{"response":"real"}', b"\xff\xfe", b'{"model":"real"'],
)  # fmt: skip
async def test_what_names_no_model_stays(said: bytes) -> None:
    inference, _ = made(Recorder("real", said), alias="real")
    assert (await inference.run(ENVIRONMENT_KEY, chat("alias"))).body == said


@pytest.mark.parametrize("name", ["real", "real-2024-07-18", "another"])
async def test_whatever_the_upstream_calls_it(name: str) -> None:
    """OpenAI answers with dated names."""
    said = f'{{"x":{{"model":"{name}"}},"response":{{"model":"{name}"}}}}'.encode()
    inference, _ = made(Recorder("real", said), alias="real")
    answer = await inference.run(ENVIRONMENT_KEY, chat("alias"))
    assert answer.body == f'{{"x":{{"model":"{name}"}},"response":{{"model":"alias"}}}}'.encode()


async def test_in_a_stream() -> None:
    events = [b'data: {"model":"real"}\n\n: real\n\n', b'data:{"model":"real"}\r\n\r\n', b"data: [DONE]\n\n",
              b'event: x\ndata: {"response":{"model":"real","a":"real"}}\n\n',
              b'data: {"model":\ndata: "real"}\n\n', b'retry: "real"\n\n']  # fmt: skip
    inference, _ = made(Recorder("real", *events, content_type=EVENT_STREAM + "; charset=utf-8"), alias="real")
    answer = await inference.run(ENVIRONMENT_KEY, chat("alias"))
    assert not isinstance(answer.body, bytes)
    assert [piece async for piece in answer.body] == [
        b'data: {"model":"alias"}\n\n: real\n\n',
        b'data: {"model":"alias"}\r\n\r\n',
        b"data: [DONE]\n\n",
        b'event: x\ndata: {"response":{"model":"alias","a":"real"}}\n\n',
        b'data: {"model":\ndata: "real"}\n\n',
        b'retry: "real"\n\n',
    ]


async def test_an_answer_that_is_neither_passes() -> None:
    inference, _ = made(Recorder("real", b'"real"', content_type="audio/mpeg"), alias="real")
    answer = await inference.run(ENVIRONMENT_KEY, chat("alias"))
    assert not isinstance(answer.body, bytes)
    assert [piece async for piece in answer.body] == [b'"real"']


async def test_a_token_names_what_it_may_use() -> None:
    real = Recorder("real", b"{}")
    inference, _ = made(real, alias="real")
    for allowed, asked in ((("gpt-*",), "real"), ((), "alias"), (("real",), "alias"), (("ALIAS",), "alias")):
        with pytest.raises(ModelNotFound):
            await inference.run(caller(allowed), chat(asked))
    assert not real.requests
    await inference.run(caller(("alias",)), chat("alias"))
    assert real.requests[0].model == "real"


async def test_a_request_without_a_model_goes_on() -> None:
    real = Recorder("real", b"{}")
    inference, _ = made(real)
    await inference.run(caller(()), ProviderRequest("GET", "files"))
    assert real.requests


async def test_test_tokens_are_answered_by_the_echo() -> None:
    real = Recorder("real", b"{}")
    inference, test = made(real, alias="real")
    await inference.run(caller(prefix="sk_test_abcdef"), chat("alias"))
    assert not real.requests
    assert test.requests[0].model == "alias"


async def test_the_list_shows_what_may_be_used() -> None:
    inference, _ = made(Recorder("real", b""), alias="real", ghost="nowhere")
    everything = {model["id"]: model["created"] for model in await inference.inference.models(ENVIRONMENT_KEY)}
    assert everything == {"real": 5, "gpt-4o": 5, "alias": 5, "ghost": 0}
    assert [model["id"] for model in await inference.inference.models(caller(("a*", "gpt-4*")))] == ["gpt-4o", "alias"]
    assert await inference.inference.models(caller(("gpt-4?", "[a-z]*"))) == []  # the star is the only wildcard
    assert (await inference.inference.model(ENVIRONMENT_KEY, "alias"))["id"] == "alias"
    with pytest.raises(ModelNotFound):
        await inference.inference.model(caller(("a*",)), "real")
