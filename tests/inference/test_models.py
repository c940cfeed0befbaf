"""A request for inference before anything is known of it."""

from gateway.inference.models import InferenceRequest
from gateway.providers.base import ProviderRequest


def test_a_new_request_is_neither_routed_nor_admitted() -> None:
    request = InferenceRequest("req_1", ProviderRequest("POST", "chat/completions", model="m"), 2.5)
    assert (request.id, request.model, request.max_wait) == ("req_1", "m", 2.5)
    assert (request.deployment, request.usage, request.upstream_seconds) == (None, None, 0.0)
