"""What routes cost: nothing, something at once by one unit or another, or something later that nobody sees. Pure."""

from types import MappingProxyType

from gateway.auth.principal import Principal
from gateway.core.errors import QuotaExceeded
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject
from gateway.providers.base import ProviderRequest
from gateway.usage.estimate import COUNTING_ENDPOINTS, SOUND_ENDPOINTS
from gateway.usage.pricing.prices import Price

FREE_ENDPOINTS = COUNTING_ENDPOINTS | {"moderations", "files", "uploads"}
"""What providers take no money for, although it is sent to them. Paths behind ``/v1/``, compared as a whole."""
_UNIT_ENDPOINTS = MappingProxyType(
    {
        "audio/speech": "character or request",
        "images/generations": "image or request",
        "images/edits": "image or request",
        "images/variations": "image or request",
        "audio/transcriptions": "second or request",
        "audio/translations": "second or request",
    }
)
"""Endpoints whose responses may report no usage, with what they are priced by."""
PAID_AT_ONCE = frozenset(
    {"chat/completions", "completions", "embeddings", "responses", "rerank", "messages", *_UNIT_ENDPOINTS}
)
"""Endpoints whose response ends all that a request costs. Batches, runs and jobs cost something later, unseen by the gateway."""
_COSTS_LATER = frozenset(
    {
        "assistants",
        "batches",
        "evals",
        "fine_tuning",
        "messages",
        "realtime",
        "responses",
        "threads",
        "vector_stores",
        "videos",
    }
)
"""Beginnings of other routes that cost something, which their responses do not say."""
_MAX_SWITCH_BYTES = 32


def check_route_cost(principal: Principal, method: str, path: str) -> None:
    """Raises QuotaExceeded for a token with a budget on a route that costs something later. ``path`` is what follows ``/v1/``."""
    if method != "POST" or principal.is_test or path in FREE_ENDPOINTS or path in PAID_AT_ONCE:
        return
    if path.partition("/")[0] not in _COSTS_LATER:
        return
    if any(own.budget is not None or any(each.budget for _, each in own.models) for _, own in principal.limits.sets):
        raise QuotaExceeded(
            f"This token has a budget, and what a request to /v1/{path[:100]} costs is not known when it ends. Use a token "
            "without a budget for it.",
            param="model",
        )


def unknown_cost(request: ProviderRequest, price: Price | None, fields: JsonObject | None) -> QuotaExceeded | None:
    """Returns why a token with a budget may not send the request; None where its cost can be known."""
    if fields is not None and "background" in fields.raw_values and fields.get_short("background", _MAX_SWITCH_BYTES):
        return QuotaExceeded(
            "This token has a budget, and an answer in the background is not seen to cost anything. Send it without "
            "`background`.",
            param="background",
        )
    if price is not None and (request.path not in _UNIT_ENDPOINTS or _has_unit_price(request.path, price)):
        return _unknown_length(request, price)
    named = "a request without a model" if request.model is None else f"the model {request.model[:100]!r}"
    example = "input = 0.15 and output = 0.60 (USD for a million tokens)"
    if request.path in _UNIT_ENDPOINTS:
        named = f"a request to /v1/{request.path} for {named}"
        example = f"input = 0, output = 0, and {_UNIT_ENDPOINTS[request.path]} (USD for one)"
    elif request.path not in PAID_AT_ONCE:
        named = f"a request to /v1/{request.path[:100]}"
    return _no_price(named, example)


def _unknown_length(request: ProviderRequest, price: Price) -> QuotaExceeded | None:
    """Returns why sound that the upstream fetches itself may not be sent: its length is not known. None for a file."""
    is_known = not isinstance(request.body, FormBody) or request.body.sound.most > 0
    if request.path not in SOUND_ENDPOINTS or price.requests > 0 or price.is_free or is_known:
        return None
    return QuotaExceeded(
        "This token has a budget, and the sound is priced by its length, which only a file in the request shows. Send the file.",
        param="file",
    )


def _no_price(named: str, example: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"This token has a budget, and nobody knows what {named} costs. Whoever runs the gateway can say so in the file that "
        f'GATEWAY_CONFIG names: [prices."model-name"], then {example}.',
        param="model",
    )


def _has_unit_price(path: str, price: Price) -> bool:
    """Returns whether the price of an endpoint that reports no usage is known: by its unit, or by the request."""
    if path in SOUND_ENDPOINTS:
        unit = price.audio_input if price.second is None else price.second
    else:
        unit = price.character if path == "audio/speech" else price.image
    return price.is_free or unit is not None or price.requests > 0
