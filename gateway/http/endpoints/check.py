"""Serves ``/api/check``, which tells whether a request would be admitted. Nothing is counted."""

from typing import Any

from gateway.core.errors import GatewayError, ModelNotFound, QuotaExceeded
from gateway.core.json_body import MAX_MODEL_LENGTH
from gateway.core.validators import string, whole_number
from gateway.http import params
from gateway.http.context import RequestContext
from gateway.http.response import Response, json_response
from gateway.inference.admission import Admission
from gateway.limits import presentation
from gateway.providers.base import ProviderRequest
from gateway.routing.catalog import Catalog

DEFAULT_ENDPOINT = "chat/completions"
MAX_TOKENS = 10**9


class CheckEndpoints:
    """Serves the dry run."""

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self._catalog = catalog
        self._admission = admission

    async def check(self, ctx: RequestContext) -> Response:
        """Tells whether a request would be admitted. ``tokens`` are those of prompt and completion together."""
        form = await params.parse_json_params(ctx, _CHECK, required=("model",))
        model, tokens = form["model"], form.get("tokens")
        endpoint = form.get("endpoint", DEFAULT_ENDPOINT)
        request = ProviderRequest("POST", endpoint, model=model)
        if not ctx.caller.may_use(model):
            return json_response(200, _refused(ModelNotFound(model), None))
        try:
            target = self._catalog.resolve(ctx.caller, model)
            dry_run = await self._admission.check(ctx.caller, request, target, tokens)
        except QuotaExceeded as unpriced:
            return json_response(200, _refused(unpriced, None))
        now = self._admission.limiter.now()
        if dry_run.exceeded is not None:
            exceeded = dry_run.exceeded
            binding = presentation.describe_limit(exceeded.charge.limit, exceeded.counter, now)
            refused = _refused(presentation.limit_error(exceeded, ctx.caller.names), binding)
            return json_response(200, {**refused, "retry_after_ms": exceeded.retry_after_ms})
        tightest = presentation.describe_limit(*dry_run.tightest, now) if dry_run.tightest else None
        return json_response(200, {"allowed": True, "status": 200, **_NO_ERROR, "limit": tightest})


_NO_ERROR = {"error": None, "retry_after_ms": None}


def _refused(problem: GatewayError, binding: dict[str, Any] | None) -> dict[str, Any]:
    wait = problem.headers.get("retry-after-ms")
    error = {"message": problem.message, "type": problem.kind, "param": problem.param, "code": problem.code}
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
    """Reads an endpoint, with or without ``/v1/``."""
    path = string(value).removeprefix("/").removeprefix("v1/")
    if not path or len(path) > 100:
        raise ValueError("must be an endpoint such as /v1/chat/completions")
    return path


def _tokens(value: Any) -> int:
    return whole_number(value, 0, MAX_TOKENS)


_CHECK: params.Readers = {"model": _model, "endpoint": _endpoint, "tokens": _tokens}
