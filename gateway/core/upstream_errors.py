"""Errors that tell of an upstream; they carry facts, as those of ``core/errors`` do."""

from collections.abc import Mapping

from gateway.core.errors import DO_NOT_RETRY, GatewayError


class UpstreamFailed(GatewayError):
    """The upstream failed, and sent no error of its own."""

    status = 502
    kind = "upstream_error"


class UpstreamUnreachable(UpstreamFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_unreachable")


class UpstreamInvalid(UpstreamFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_invalid")


class UpstreamTimeout(UpstreamFailed):
    status = 504

    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_timeout")


class UpstreamReported(UpstreamFailed):
    """The upstream has reported its failure to the client in the stream itself, so that only the connection is left to break.

    A provider raises it from an event stream, after the event that reports the error. ``openai_body`` is that error in OpenAI's
    shape, for clients that look for another event than the one that the upstream has sent; ``message`` is what it says.
    """

    def __init__(self, message: str, openai_body: bytes | None) -> None:
        super().__init__(f"The upstream reported an error in its stream: {message}", code="upstream_error")
        self.openai_body = openai_body


class UpstreamRefused(UpstreamFailed):
    """The upstream's own error, with its status.

    ``openai_body`` is its body with what was missing of OpenAI's shape, None where it said nothing that has a shape;
    ``original_body`` is the body as it came.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str],
        openai_body: bytes | None = None,
        original_body: bytes | None = None,
    ) -> None:
        super().__init__(message, code="upstream_error", headers=headers)
        self.status = status
        self.openai_body = openai_body
        self.original_body = original_body if original_body is not None else openai_body


class UpstreamAuthFailed(UpstreamFailed):
    """The upstream refuses the gateway's own key, with ``upstream_status`` 401 or 403. The client's key is not meant.

    It takes a person to set another key, so clients are told not to try again, as they do after any other 502.
    """

    def __init__(self, upstream_status: int, said: str, headers: Mapping[str, str]) -> None:
        message = (
            f"The upstream refuses the gateway's own key, not yours ({upstream_status}). Whoever runs the gateway has to "
            f"check GATEWAY_UPSTREAM_API_KEY. The upstream says: {said}"
        )
        super().__init__(message, code="upstream_auth", headers={**headers, **DO_NOT_RETRY})
        self.upstream_status = upstream_status
