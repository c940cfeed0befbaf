"""``/api/check``: would this request pass? A dry run, which counts as nothing."""

from typing import Any

from aiohttp import web

from gateway.core.errors import GatewayError, ModelNotFound, QuotaExceeded
from gateway.core.json_body import MAX_MODEL_LENGTH
from gateway.core.validators import string, whole_number
from gateway.http import params, response
from gateway.http.context import RequestContext
from gateway.inference.admission import Admission
from gateway.limits import presentation
from gateway.providers.base import ProviderRequest

DEFAULT_ENDPOINT = "chat/completions"
MOST_TOKENS = 10**9


class CheckEndpoints:
    """Asks ``admission`` without asking for anything."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def check(self, ctx: RequestContext) -> web.StreamResponse:
        """``tokens`` are the prompt's and the completion's together."""
        form = await params.parse_json_params(ctx, _CHECK, required=("model",))
        model, tokens = form["model"], form.get("tokens")
        endpoint = form.get("endpoint", DEFAULT_ENDPOINT)
        request = ProviderRequest("POST", endpoint, model=model)
        if not ctx.caller.may_use(model):
            return response.json(ctx, 200, _refused(ModelNotFound(model), None))
        try:
            outlook = await self._admission.check(ctx.caller, request, tokens)
        except QuotaExceeded as unpriced:
            return response.json(ctx, 200, _refused(unpriced, None))
        now = self._admission.limiter.now()
        if outlook.refusal is not None:
            binding = presentation.describe_limit(outlook.refusal.charge.limit, outlook.refusal.counter, now)
            return response.json(
                ctx, 200, _refused(presentation.limit_error(outlook.refusal, ctx.caller.names), binding)
            )
        tightest = presentation.describe_limit(*outlook.tightest, now) if outlook.tightest else None
        return response.json(ctx, 200, {"allowed": True, "status": 200, **_NOTHING_WRONG, "limit": tightest})


_NOTHING_WRONG = {"error": None, "retry_after_ms": None}


def _refused(problem: GatewayError, binding: dict[str, Any] | None) -> dict[str, Any]:
    wait = problem.headers.get("retry-after-ms")
    error = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
    return {
        "allowed": False,
        "status": problem.status,
        "error": error,
        "retry_after_ms": None if wait is None else int(wait),
        "limit": binding,
    }


def _model(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_MODEL_LENGTH:
        raise ValueError(f"must be a string of 1 to {MAX_MODEL_LENGTH} characters")
    return value


def _endpoint(value: Any) -> str:
    """With or without ``/v1/``."""
    path = string(value).removeprefix("/").removeprefix("v1/")
    if not path or len(path) > 100:
        raise ValueError("must be an endpoint such as /v1/chat/completions")
    return path


def _tokens(value: Any) -> int:
    return whole_number(value, 0, MOST_TOKENS)


_CHECK: params.Readers = {"model": _model, "endpoint": _endpoint, "tokens": _tokens}
