"""Sends requests to any OpenAI-compatible upstream: OpenAI, vLLM, Ollama, llama.cpp, LiteLLM … Bodies are passed on unchanged."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.upstream_errors import UpstreamFailed, UpstreamInvalid
from gateway.core.upstream_routes import is_inference
from gateway.observability.redaction import spellings
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderConfig, ProviderRequest, ProviderResponse
from gateway.providers.openai import error_shapes, errors, failure_log, model_list
from gateway.providers.openai.first_content import has_content
from gateway.providers.openai.key_redaction import KeyRedactor
from gateway.providers.openai.stream_ends import stream_end, wants_stream
from gateway.providers.openai.streaming import StreamLimits, StreamStart, read_events
from gateway.providers.transport.base import Timeouts, Transport, TransportRequest, TransportResponse
from gateway.providers.transport.http1_client import Http1Transport

JSON_ENDPOINTS = frozenset({"chat/completions", "completions", "embeddings", "responses"})
"""The endpoints whose response must be a JSON object or an event stream."""
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_EVENT_BYTES = 64 * 1024 * 1024
"""The largest event of a stream: a picture, or a response as a whole. It is in memory until it is complete."""
"""The limit for a whole response, and for one event of a stream."""
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""The limit for a response that came compressed: its sender has not sent as many bytes as it costs here."""
USAGE_GRACE_SECONDS = 2.0
"""How long a stream in which every choice has finished waits for usage and ``[DONE]``."""

_MARK = b"\xef\xbb\xbf"
_FIELD_OF_EVENT = re.compile(rb"(?:data|event|id|retry)?:")
_REQUEST_ID = "x-request-id"
_RETURNED_HEADERS = frozenset({
    "retry-after", "retry-after-ms", "x-should-retry", "content-disposition", "content-range", "accept-ranges", "etag",
    "last-modified",
})  # fmt: skip


def create(config: ProviderConfig) -> Provider:
    """Returns the provider for the upstream of ``config``. Raises ValueError where none is set."""
    if config.upstream_url is None:
        raise ValueError("the backend `openai` needs GATEWAY_UPSTREAM_URL")
    timeouts = Timeouts(config.connect_timeout, config.first_byte_timeout, config.chunk_timeout)
    return OpenAIProvider(Http1Transport(timeouts), config.upstream_url, config.upstream_api_key)


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
        """Returns the upstream's response. Raises UpstreamRefused and UpstreamAuthFailed for its errors, UpstreamFailed where it
        gave no valid response.

        An error that an event stream begins with, before any content, is raised, too: it can still be sent with a status.
        """
        asked = self._transport_request(request)
        try:
            response = await self._transport.send(asked)
            try:
                return await self._read_response(request, response)
            except BaseException:
                response.close()
                raise
        except UpstreamFailed as error:
            failure_log.note(asked, error, request.request_id)
            raise

    async def models(self) -> list[dict[str, Any]]:
        """Returns the upstream's list of models, empty where it has no such route. Raises UpstreamInvalid where the answer is no
        list, and what ``send`` raises."""
        asked = self._transport_request(ProviderRequest("GET", "models"))
        try:
            response = await self._transport.send(asked)
            try:
                if response.status in model_list.NO_SUCH_ROUTE:
                    return []
                await self._check_status(response)
                return model_list.parse(self._key_redactor.redact(await response.read(model_list.MAX_BYTES)))
            finally:
                response.close()
        except UpstreamFailed as error:
            failure_log.note(asked, error, "")
            raise

    async def aclose(self) -> None:
        """Closes the connections to the upstream."""
        await self._transport.aclose()

    def _transport_request(self, request: ProviderRequest) -> TransportRequest:
        query = f"?{request.query}" if request.query else ""
        headers = {**request.headers, **self._own_headers}
        return TransportRequest(request.method, f"{self._base_url}/{request.path}{query}", headers, request.body)

    async def _read_response(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        await self._check_status(response)
        media_type = _media_type(response)
        is_strict = request.path in JSON_ENDPOINTS and request.method == "POST"
        if media_type == EVENT_STREAM if not is_strict else request.stream:
            return await self._stream_response(request, response)
        if is_strict or (
            media_type == JSON and is_inference(request.method, request.path) and not wants_stream(request)
        ):
            return self._document_response(response, await self._read_all(response), is_strict)
        if wants_stream(request) and not media_type.startswith(("audio/", "image/", "video/")):
            return await self._stream_response(request, response)
        return self._relay_body(response, response.chunks())

    async def _stream_response(self, request: ProviderRequest, response: TransportResponse) -> ProviderResponse:
        """Decides by the first bytes, whatever the content type says, whether this is an event stream or one document."""
        response.expect_content()
        chunks = response.chunks()
        first = await _first_bytes(chunks)
        start = first.removeprefix(_MARK).lstrip()
        is_strict = request.path in JSON_ENDPOINTS
        is_declared = _media_type(response) == EVENT_STREAM
        is_document = start[:1] in (b"{", b"[", b"<") and bool(start)
        if not is_document and (is_declared or is_strict or _FIELD_OF_EVENT.match(start)):
            return await self._event_stream_response(request, response, (first, chunks))
        response.begin_content()
        if is_strict or (is_document and start[:1] != b"<"):
            found = self._document_response(response, first + await self._read_all(response), is_strict)
            if not is_strict:
                return found
            raise UpstreamInvalid("The upstream answered a request for a stream without one.")
        return self._relay_body(response, _chain(first, chunks))

    async def _check_status(self, response: TransportResponse) -> None:
        if 400 <= response.status < 600:
            raise await self._read_error(response)
        if not 200 <= response.status < 300 and response.status != 304:
            raise UpstreamInvalid(f"The upstream answered {response.status}; redirects and upgrades are not followed.")

    async def _event_stream_response(
        self, request: ProviderRequest, response: TransportResponse, body: tuple[bytes, AsyncIterator[bytes]]
    ) -> ProviderResponse:
        """Waits for the first content: an error that comes before it can still be sent with a status of its own."""
        limits = StreamLimits(MAX_EVENT_BYTES, lambda: response.limit_pause(USAGE_GRACE_SECONDS))
        start = StreamStart(read_events(*body, stream_end(request), limits))
        await start.read()
        headers = self._returned_headers(response)
        if start.report is not None:
            raise errors.from_report(start.report, headers, self._redact)
        if not start.opening:
            raise UpstreamInvalid("The upstream's stream ended before it began.")
        if start.has_content:
            response.begin_content()

        def close() -> None:
            start.cancel()
            response.close()

        events = self._relay_events(request, start, response)
        return ProviderResponse(response.status, EVENT_STREAM, events, headers, close)

    async def _relay_events(
        self, request: ProviderRequest, start: StreamStart, response: TransportResponse
    ) -> AsyncIterator[bytes]:
        try:
            async with aclosing(start):
                for chunk in start.opening:
                    yield self._key_redactor.redact(chunk.data)
                has_begun = start.has_content
                async for chunk in start.rest():
                    if not has_begun and (has_begun := has_content(chunk.data)):
                        response.begin_content()
                    if chunk.error is not None:
                        yield errors.redacted_event(chunk, self._redact)
                        raise errors.reported(chunk.error, self._redact)
                    yield self._key_redactor.redact(chunk.data)
        except UpstreamFailed as error:
            failure_log.note(self._transport_request(request), error, request.request_id)
            raise

    def _document_response(self, response: TransportResponse, body: bytes, is_strict: bool) -> ProviderResponse:
        """Raises the error that a document with status 200 may report. With ``is_strict`` it must be a JSON object."""
        headers = self._returned_headers(response)
        try:
            head = msgspec.json.decode(body, type=_JsonBody)
            is_odd, may_report = False, head.error != errors.NO_ERROR or head.object in _NO_OBJECTS
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            is_odd = may_report = True
        if may_report and (report := _reported_in(body, is_odd, is_strict)) is not None:
            raise errors.from_report(report, headers, self._redact)
        response.close()
        content_type = JSON if is_strict else self._key_redactor.redact_text(response.headers.get("content-type", JSON))
        return ProviderResponse(response.status, content_type, self._key_redactor.redact(body), headers)

    async def _read_all(self, response: TransportResponse) -> bytes:
        return await response.read(_max_bytes(response))

    async def _read_error(self, response: TransportResponse) -> UpstreamFailed:
        body = await errors.read_body(response)
        return errors.from_body(response.status, body, self._returned_headers(response), self._redact)

    def _returned_headers(self, response: TransportResponse) -> dict[str, str]:
        """Returns the headers that clients get to see, the upstream's request id among them under a name of its own."""
        sent = response.headers
        headers = {name: self._redact(sent[name]) for name in _RETURNED_HEADERS.intersection(sent)}
        if (request_id := sent.get(_REQUEST_ID)) is not None:
            headers["x-upstream-request-id"] = self._redact(request_id)
        return headers

    def _relay_body(self, response: TransportResponse, chunks: AsyncIterator[bytes]) -> ProviderResponse:
        """Returns a response of any kind, chunk by chunk; with its length, unless the transport has decompressed it."""
        content_type = self._key_redactor.redact_text(response.headers.get("content-type", "application/octet-stream"))
        headers = self._returned_headers(response)
        if "content-length" in response.headers and "content-encoding" not in response.headers:
            headers["Content-Length"] = response.headers["content-length"]
        body = self._key_redactor.redact_chunks(chunks)
        return ProviderResponse(response.status, content_type, body, headers, response.close)

    def _redact(self, text: str) -> str:
        """Returns the text without the upstream's key: an upstream that quotes it must not show it to our clients."""
        for spelling in self._key_spellings:
            text = text.replace(spelling, "***")
        return text


class _JsonBody(msgspec.Struct):
    """Has the fields of a JSON response that are looked at. In the Responses API an ``error`` of null is normal.

    An answer of OpenAI's API names its ``object``; one that does not is looked at as a whole.
    """

    error: msgspec.Raw = errors.NO_ERROR
    object: msgspec.Raw = errors.NO_ERROR


_NO_OBJECTS = (msgspec.Raw(b'"error"'), errors.NO_ERROR)


def _reported_in(body: bytes, is_odd: bool, is_strict: bool) -> Any:
    """Returns the document of the error in a body, None where it reports none.

    Raises UpstreamInvalid where the body has to be a JSON object, and no client could read it as one.
    """
    try:
        content = lenient_json.decode(body) if len(body) <= errors.MAX_ERROR_BYTES or is_odd else _TOO_LARGE
    except ValueError:
        content = None
    report = sse.reported_error(content)
    if report is None and is_strict and error_shapes.is_no_answer(content):
        return content
    if report is None and is_strict and not isinstance(content, dict):
        raise UpstreamInvalid("The upstream's answer is not a JSON object.")
    return report


_TOO_LARGE = {"error": "an error too large to show"}


def _media_type(response: TransportResponse) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _max_bytes(response: TransportResponse) -> int:
    return MAX_UNPACKED_BYTES if "content-encoding" in response.headers else MAX_RESPONSE_BYTES


async def _first_bytes(chunks: AsyncIterator[bytes]) -> bytes:
    """Returns the beginning of a body, up to the first chunk that is not blank."""
    first = b""
    async for chunk in chunks:
        first += chunk
        if first.removeprefix(_MARK).strip():
            break
    return first


async def _chain(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    if first:
        yield first
    async for chunk in chunks:
        yield chunk
