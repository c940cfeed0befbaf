"""Sends requests to any OpenAI-compatible upstream: OpenAI, vLLM, Ollama, llama.cpp, LiteLLM … Bodies are passed on unchanged."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import msgspec
from multidict import istr

from gateway.core.errors import UpstreamInvalid, UpstreamRefused, UpstreamReported
from gateway.observability.redaction import spellings
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderConfig, ProviderRequest, ProviderResponse
from gateway.providers.openai import errors
from gateway.providers.openai.key_redaction import KeyRedactor
from gateway.providers.openai.streaming import StreamChunk, StreamEnd, read_events
from gateway.providers.transport.aiohttp_client import AiohttpTransport
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest, TransportResponse

JSON_ENDPOINTS = frozenset({"chat/completions", "completions", "embeddings", "responses"})
"""The endpoints whose response must be a JSON object or an event stream."""
STREAM_ENDS = MappingProxyType(
    {"chat/completions": StreamEnd.DONE, "completions": StreamEnd.DONE, "responses": StreamEnd.TERMINAL_EVENT}
)
"""How the event stream of an endpoint shows that it is complete; all others show nothing."""
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""The limit for a response that came compressed: its sender has not sent as many bytes as it costs here."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
MAX_MODELS_VALUES = 300_000
"""How many JSON values a list of models may have: 16 MiB of empty lists take twenty times as much when they are decoded."""

_REQUEST_ID = istr("x-request-id")
_RETURNED_HEADERS = tuple(map(istr, (
    "retry-after", "retry-after-ms", "x-should-retry", "content-disposition", "content-range", "accept-ranges", "etag",
    "last-modified",
)))  # fmt: skip


def create(config: ProviderConfig) -> Provider:
    """Returns the provider for the upstream of ``config``. Raises ValueError where none is set."""
    if config.upstream_url is None:
        raise ValueError("the backend `openai` needs GATEWAY_UPSTREAM_URL")
    timeouts = Timeouts(config.connect_timeout, config.first_byte_timeout, config.chunk_timeout)
    return OpenAIProvider(AiohttpTransport(timeouts), config.upstream_url, config.upstream_api_key)


class OpenAIProvider:
    """Sends requests through a transport, with its own key in place of the client's.

    ``base_url`` goes up to and with ``/v1``. The key is redacted in everything that the upstream sends.
    """

    name = "openai"

    def __init__(self, transport: Transport, base_url: str, api_key: str | None) -> None:
        self._transport = transport
        self._base_url = base_url
        self._key_spellings = spellings(api_key) if api_key else ()
        self._key_redactor = KeyRedactor(api_key)
        self._own_headers = {"Accept-Encoding": "identity"}
        if api_key:
            self._own_headers["Authorization"] = f"Bearer {api_key}"

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        """Returns the upstream's response. Raises UpstreamRefused for its errors, UpstreamFailed where it gave no valid one.

        An error that an event stream begins with is raised, too: it can still be sent with a status of its own.
        """
        response = await self._transport.send(self._transport_request(request))
        try:
            return await self._read_response(request, response)
        except BaseException:
            response.close()
            raise

    async def models(self) -> list[dict[str, Any]]:
        """Returns the upstream's list of models. Raises UpstreamInvalid where it is none, and what ``send`` raises."""
        response = await self._transport.send(self._transport_request(ProviderRequest("GET", "models")))
        try:
            await self._check_status(response)
            body = self._key_redactor.redact(await response.read(MAX_MODELS_BYTES))
            if sum(map(body.count, (b",", b"[", b"{"))) > MAX_MODELS_VALUES:
                raise UpstreamInvalid(f"The upstream's list of models has more than {MAX_MODELS_VALUES} values.")
            found = msgspec.json.decode(body)["data"]
            return [dict(model) for model in found if isinstance(model["id"], str)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, ValueError):
            raise UpstreamInvalid("The upstream's list of models is invalid.") from None
        finally:
            response.close()

    async def aclose(self) -> None:
        """Closes the connections to the upstream."""
        await self._transport.aclose()

    def _transport_request(self, request: ProviderRequest) -> TransportRequest:
        query = f"?{request.query}" if request.query else ""
        headers = {**request.headers, **self._own_headers}
        return TransportRequest(request.method, f"{self._base_url}/{request.path}{query}", headers, request.body)

    async def _read_response(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        await self._check_status(response)
        is_strict = request.path in JSON_ENDPOINTS and request.method == "POST"
        if is_strict and not request.stream:
            return await self._json_response(response)
        if _media_type(response) == EVENT_STREAM:
            return await self._event_stream_response(request, response)
        if is_strict:
            await self._json_response(response)  # raises the error that a JSON body with status 200 may report
            raise UpstreamInvalid("The upstream answered a request for a stream without one.")
        return self._relay_body(response)

    async def _check_status(self, response: TransportResponse) -> None:
        if 400 <= response.status < 600:
            raise await self._read_error(response)
        if not 200 <= response.status < 300 and response.status != 304:
            raise UpstreamInvalid(f"The upstream answered {response.status}; redirects and upgrades are not followed.")

    async def _event_stream_response(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        """Waits for the first event: an error that comes first can still be sent with a status of its own."""
        stream = read_events(response.chunks(), STREAM_ENDS.get(request.path, StreamEnd.NONE))
        first = await anext(stream, None)
        if first is None:
            raise UpstreamInvalid("The upstream's stream ended before it began.")
        if first.error is not None:
            raise errors.from_event(first.error, self._returned_headers(response), self._redact)
        body = self._relay_events(first.data, stream)
        return ProviderResponse(response.status, EVENT_STREAM, body, self._returned_headers(response), response.close)

    async def _relay_events(self, first: bytes, stream: AsyncGenerator[StreamChunk, None]) -> AsyncIterator[bytes]:
        async with aclosing(stream):
            yield self._key_redactor.redact(first)
            async for chunk in stream:
                if chunk.error is not None:
                    yield errors.redacted_event(chunk, self._redact)
                    raise UpstreamReported
                yield self._key_redactor.redact(chunk.data)

    async def _json_response(self, response: TransportResponse) -> ProviderResponse:
        is_compressed = "Content-Encoding" in response.headers
        body = await response.read(MAX_UNPACKED_BYTES if is_compressed else MAX_RESPONSE_BYTES)
        try:
            reported = msgspec.json.decode(body, type=_JsonBody).error
            error = None if reported is errors.NO_ERROR else errors.decode_reported(reported)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamInvalid("The upstream's answer is not a JSON object.") from None
        if error:
            raise errors.from_event(error, self._returned_headers(response), self._redact)
        response.close()
        return ProviderResponse(
            response.status, JSON, self._key_redactor.redact(body), self._returned_headers(response)
        )

    async def _read_error(self, response: TransportResponse) -> UpstreamRefused:
        body = await errors.read_body(response)
        return errors.from_body(response.status, body, self._returned_headers(response), self._redact)

    def _returned_headers(self, response: TransportResponse) -> dict[str, str]:
        """Returns the headers that clients get to see, the upstream's request id among them under a name of its own."""
        sent = response.headers
        headers: dict[str, str] = {
            name: self._redact(value) for name in _RETURNED_HEADERS if (value := sent.get(name)) is not None
        }
        if (request_id := sent.get(_REQUEST_ID)) is not None:
            headers["x-upstream-request-id"] = self._redact(request_id)
        return headers

    def _relay_body(self, response: TransportResponse) -> ProviderResponse:
        """Returns a response of any kind, chunk by chunk; with its length, unless the transport has decompressed it."""
        content_type = self._key_redactor.redact_text(response.headers.get("Content-Type", "application/octet-stream"))
        headers = self._returned_headers(response)
        if "Content-Length" in response.headers and "Content-Encoding" not in response.headers:
            headers["Content-Length"] = response.headers["Content-Length"]
        chunks = self._key_redactor.redact_chunks(response.chunks())
        return ProviderResponse(response.status, content_type, chunks, headers, response.close)

    def _redact(self, text: str) -> str:
        """Returns the text without the upstream's key: an upstream that quotes it must not show it to our clients."""
        for spelling in self._key_spellings:
            text = text.replace(spelling, "***")
        return text


class _JsonBody(msgspec.Struct):
    """Has the one field of a JSON response that is looked at. In the Responses API an ``error`` of null is normal."""

    error: msgspec.Raw = errors.NO_ERROR


def _media_type(response: TransportResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
