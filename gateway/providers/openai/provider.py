"""Any OpenAI-compatible upstream: OpenAI, vLLM, Ollama, llama.cpp, LiteLLM … Bodies go there and come back as they are."""

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
from multidict import istr

from gateway.core.errors import UpstreamInvalid, UpstreamRefused, UpstreamReported
from gateway.observability.redaction import spellings
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderConfig, ProviderRequest, ProviderResponse
from gateway.providers.openai import errors
from gateway.providers.openai.streaming import StreamEnd, events_of
from gateway.providers.transport.aiohttp_client import AiohttpTransport
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest, TransportResponse

JSON_ENDPOINTS = frozenset({"chat/completions", "completions", "embeddings", "responses"})
"""Where an answer is JSON or an event stream, and anything else is nonsense."""
ENDS = MappingProxyType(
    {"chat/completions": StreamEnd.DONE, "completions": StreamEnd.DONE, "responses": StreamEnd.TERMINAL_EVENT}
)
"""How an endpoint's event stream shows that it is whole."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024

_SENT_HEADERS = frozenset(
    {
        "accept", "content-type", "user-agent", "openai-beta", "idempotency-key", "x-client-request-id", "range",
        "if-none-match", "if-modified-since", "traceparent", "tracestate",
    }
)  # fmt: skip
_REQUEST_ID = istr("x-request-id")
_SENT_PREFIXES = ("x-stainless-", "anthropic-")
_KEPT_HEADERS = tuple(map(istr, (
    "retry-after", "retry-after-ms", "x-should-retry", "content-disposition", "content-range", "accept-ranges", "etag",
    "last-modified",
)))  # fmt: skip


def create(config: ProviderConfig) -> Provider:
    """Raises ValueError where no upstream is set."""
    if config.upstream_url is None:
        raise ValueError("the backend `openai` needs GATEWAY_UPSTREAM_URL")
    timeouts = Timeouts(config.connect_timeout, config.first_byte_timeout, config.chunk_timeout)
    return OpenAIProvider(AiohttpTransport(timeouts), config.upstream_url, config.upstream_api_key)


class OpenAIProvider:
    name = "openai"

    def __init__(self, upstream: Transport, base_url: str, api_key: str | None) -> None:
        self._upstream = upstream
        self._base_url = base_url
        self._key_forms = spellings(api_key) if api_key else ()
        self._own_headers = {"Accept-Encoding": "identity"}
        if api_key:
            self._own_headers["Authorization"] = f"Bearer {api_key}"

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        response = await self._upstream.send(self._upstream_request(request))
        try:
            return await self._answer(request, response)
        except BaseException:
            response.close()
            raise

    async def models(self) -> list[dict[str, Any]]:
        """Raises UpstreamInvalid where the list is none."""
        answer = await self.send(ProviderRequest("GET", "models"))
        try:
            body = answer.body if isinstance(answer.body, bytes) else b"".join([piece async for piece in answer.body])
            found = msgspec.json.decode(body)["data"]
            return [dict(model) for model in found if isinstance(model["id"], str)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
            raise UpstreamInvalid("The upstream's list of models is not one.") from None
        finally:
            answer.close()

    async def aclose(self) -> None:
        await self._upstream.aclose()

    def _upstream_request(self, request: ProviderRequest) -> TransportRequest:
        query = f"?{request.query}" if request.query else ""
        headers = {**_sendable(request.headers), **self._own_headers}
        return TransportRequest(request.method, f"{self._base_url}/{request.path}{query}", headers, request.body)

    async def _answer(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        if 400 <= response.status < 600:
            raise await self._refused(response)
        if not 200 <= response.status < 300 and response.status != 304:
            raise UpstreamInvalid(f"The upstream answered {response.status}; redirects and upgrades are not followed.")
        is_strict = request.path in JSON_ENDPOINTS and request.method == "POST"
        if is_strict and not request.stream:
            return await self._json_answer(response)
        if _media_type(response) == EVENT_STREAM:
            return await self._event_answer(request, response)
        if is_strict:
            await self._json_answer(response)  # an error in disguise is reported as such
            raise UpstreamInvalid("The upstream answered a request for a stream without one.")
        return self._copied(response)

    async def _event_answer(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        """The first event is waited for: an error that comes first can still be answered with a real status."""
        stream = events_of(response.chunks(), ENDS.get(request.path, StreamEnd.FREE))
        first = await anext(stream, None)
        if first is None:
            raise UpstreamInvalid("The upstream's stream ended before it began.")
        if first.error is not None:
            raise errors.from_event(first.error, self._kept(response), self._redact)

        async def rest() -> AsyncIterator[bytes]:
            yield first.data
            async for piece in stream:
                if piece.error is not None:
                    yield errors.redacted_event(piece, self._redact)
                    raise UpstreamReported
                yield piece.data

        return ProviderResponse(response.status, EVENT_STREAM, rest(), self._kept(response), response.close)

    async def _json_answer(self, response: TransportResponse) -> ProviderResponse:
        body = await response.read(MAX_ANSWER_BYTES)
        try:
            content = msgspec.json.decode(body, type=_JsonAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamInvalid("The upstream's answer is not a JSON object.") from None
        if content.error:
            raise errors.from_event(content.error, self._kept(response), self._redact)
        response.close()
        return ProviderResponse(response.status, JSON, body, self._kept(response))

    async def _refused(self, response: TransportResponse) -> UpstreamRefused:
        body = await errors.read_body(response)
        return errors.from_body(response.status, body, self._kept(response), self._redact)

    def _kept(self, response: TransportResponse) -> dict[str, str]:
        """The headers that clients get to see."""
        kept: dict[str, str] = {
            name: self._redact(value) for name in _KEPT_HEADERS if (value := response.headers.get(name)) is not None
        }
        if (request_id := response.headers.get(_REQUEST_ID)) is not None:
            kept["x-upstream-request-id"] = self._redact(request_id)
        return kept

    def _copied(self, response: TransportResponse) -> ProviderResponse:
        """Whatever it is, piece by piece; its length, too, unless it was unpacked on the way."""
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        kept = self._kept(response)
        if "Content-Length" in response.headers and "Content-Encoding" not in response.headers:
            kept["Content-Length"] = response.headers["Content-Length"]
        return ProviderResponse(response.status, content_type, response.chunks(), kept, response.close)

    def _redact(self, text: str) -> str:
        """An upstream that quotes the key it was shown must not hand it to our clients."""
        for form in self._key_forms:
            text = text.replace(form, "***")
        return text


class _JsonAnswer(msgspec.Struct):
    """What is looked at in a whole answer. Responses carry an ``error`` of null."""

    error: Any = None


def _media_type(response: TransportResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """An allow-list: a new kind of credential header must not slip through because nobody had heard of it."""
    return {name: value for name, value in headers.items() if _is_sendable(name)}


@lru_cache(maxsize=1024)
def _is_sendable(name: str) -> bool:
    lower = name.lower()
    return lower in _SENT_HEADERS or lower.startswith(_SENT_PREFIXES)
