"""The use case of inference. It owns the life of a request: whatever happens, what was reserved is settled, and what was
used is in the ledger, once."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

import msgspec

from gateway.auth.principal import Principal
from gateway.core.errors import ModelNotFound, StoreUnavailable
from gateway.core.json_body import JsonObject
from gateway.core.upstream_errors import UpstreamRefused
from gateway.inference.admission import Admission
from gateway.inference.checked_requests import CHECKED_ENDPOINTS, COUNTS, MAX_OPTIONS_BYTES, PLAIN_FIELDS, check_request
from gateway.inference.models import InferenceRequest, RequestIdentity
from gateway.inference.usage_tracker import UsageTracker
from gateway.providers.base import ProviderRequest, ProviderResponse
from gateway.routing import aliases
from gateway.routing.catalog import Catalog, Target
from gateway.usage.ledger import Ledger

_REPORTS_USAGE_ON_REQUEST = frozenset({"chat/completions", "completions"})
"""Endpoints whose streams report usage only if they are asked to."""
_ASKING = b'{"include_usage":true}'
_MAX_ASKING_BYTES = 64
_PLAIN_OR_COUNTED = PLAIN_FIELDS | COUNTS
_MAX_REMEMBERED = 1024
"""How many models are remembered that refuse ``stream_options``. Their names are whatever clients send."""


class UsageRules(NamedTuple):
    """``clock`` is in seconds since the epoch. ``asks_for_usage``: whether streams are asked for what they used.
    ``redact`` makes a model's name fit for the ledger: it is whatever a client sends."""

    clock: Callable[[], float]
    asks_for_usage: bool
    redact: Callable[[str], str]


class Inference:
    """Admits requests, sends them to a provider, and tracks what they use."""

    def __init__(self, catalog: Catalog, admission: Admission, ledger: Ledger, rules: UsageRules) -> None:
        self.catalog = catalog
        self._admission = admission
        self._ledger = ledger
        self._rules = rules
        self._refuse_options: set[tuple[str, str | None]] = set()
        """Provider and model of those that refuse ``stream_options``."""

    def open(self, principal: Principal, request: InferenceRequest) -> "OpenInference":
        """Returns a context manager that admits the request, sends it, and has the response; see ``OpenInference``."""
        return OpenInference(self, principal, request)

    async def admit(self, principal: Principal, request: InferenceRequest) -> tuple[UsageTracker, Target]:
        """Checks the request, and reserves what it may use. Whoever is given the tracker enters it.

        Raises ModelNotFound, Forbidden, BadRequest, RateLimited, TokensLimited, QuotaExceeded, StoreUnavailable.
        """
        model = request.request.model
        target = self.catalog.resolve(principal, model)
        request.deployment = target.provider.name
        if model is not None and principal.is_limited and not principal.may_use(model):
            raise ModelNotFound(model)
        if (principal.depends_on_model or principal.limits) and not _is_plain(request.request):
            check_request(principal, request.request)
        if self._ledger.is_full:
            raise StoreUnavailable("What is used cannot be written down at the moment.")
        now = int(self._rules.clock() * 1000)
        admitted = await self._admission.reserve(principal, request, target, now)
        if request.on_admitted is not None:
            request.on_admitted()
        at = now if admitted.reservation is None else admitted.reservation.at
        identity = self._identity(principal, request, at)
        request.usage = tracker = UsageTracker(
            identity, request.request, admitted, self._admission.limiter, self._ledger
        )
        return tracker, target

    async def send(self, request: InferenceRequest, target: Target, tracker: UsageTracker) -> ProviderResponse:
        """Sends an admitted request, and returns the response, in which the tracker counts. Raises what the provider raises."""
        given, model = request.request, request.request.model
        is_asked = self._rules.asks_for_usage and not (
            self._refuse_options and (target.provider.name, target.model) in self._refuse_options
        )
        sent, drops_usage = _ask_for_usage(given) if is_asked and given.stream else (given, False)
        began = time.perf_counter()
        try:
            if sent is given and not target.is_renamed:
                response = tracker.track(await target.provider.send(given), drops_usage)
            else:
                response = tracker.track(await self._send_asking(given, sent, target), drops_usage)
            if target.is_renamed and model is not None:
                response = aliases.rename_response(response, lambda _name: model)
            elif model is None and self.catalog.has_aliases:
                response = aliases.rename_response(response, self.catalog.client_name)
            return response
        finally:
            request.upstream_seconds += time.perf_counter() - began

    async def _send_asking(self, given: ProviderRequest, asking: ProviderRequest, target: Target) -> ProviderResponse:
        """Sends the request that asks for usage; once more as it was given where the provider refuses ``stream_options``."""
        try:
            return await self._send(asking, target)
        except UpstreamRefused as error:
            if asking is given or not _refuses_options(error):
                raise
        response = await self._send(given, target)
        if len(self._refuse_options) < _MAX_REMEMBERED:
            self._refuse_options.add((target.provider.name, target.model))
        return response

    async def _send(self, request: ProviderRequest, target: Target) -> ProviderResponse:
        """Sends the request under the provider's name for the model."""
        if not target.is_renamed or target.model is None or request.model is None:
            return await target.provider.send(request)
        try:
            return await target.provider.send(aliases.rename_request(request, target.model))
        except UpstreamRefused as error:
            aliases.rename_error(error, target.model, request.model)
            raise

    def _identity(self, principal: Principal, request: InferenceRequest, now: int) -> RequestIdentity:
        match, model = principal.secret_match, request.request.model
        return RequestIdentity(
            request.id,
            match.record.id if match else principal.name,
            match.record.owner if match else None,
            model and self._rules.redact(model),
            request.deployment or "",
            now,
        )


class OpenInference:
    """A request from its admission to its entry in the ledger: a context manager, inside of which its response is sent.

    On exit, whatever happened, the reservation is settled and the ledger has its entry. Entering raises what ``Inference.admit``
    and ``Inference.send`` raise.
    """

    __slots__ = ("_inference", "_principal", "_request", "_response", "_tracker")

    def __init__(self, inference: Inference, principal: Principal, request: InferenceRequest) -> None:
        self._inference = inference
        self._principal = principal
        self._request = request

    async def __aenter__(self) -> ProviderResponse:
        tracker, target = await self._inference.admit(self._principal, self._request)
        self._tracker = tracker.__enter__()
        try:
            self._response = await self._inference.send(self._request, target, tracker)
        except BaseException as error:
            tracker.__exit__(type(error), error, error.__traceback__)
            raise
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._response.close is not None:
                self._response.close()
        finally:
            self._tracker.__exit__(kind, error, traceback)


def _is_plain(request: ProviderRequest) -> bool:
    """Returns whether a glance shows that ``check_request`` would find nothing, as in most requests."""
    fields = request.fields
    if request.method != "POST" or request.path not in CHECKED_ENDPOINTS or not isinstance(fields, JsonObject):
        return False
    values = fields.raw_values
    if not _PLAIN_OR_COUNTED.issuperset(values):
        return False
    return all(_is_short_count(values[name]) for name in COUNTS.intersection(values))


def _is_short_count(raw: msgspec.Raw) -> bool:
    return memoryview(raw).nbytes < 10 and bytes(raw).isdigit() and bytes(raw) != b"0"


def _ask_for_usage(request: ProviderRequest) -> tuple[ProviderRequest, bool]:
    """Returns the request so that its stream reports usage, and whether the client did not ask for that itself.

    Whatever else the client has sent as ``stream_options``: an upstream may read it otherwise, and then report nothing.
    """
    fields = request.fields
    if not request.stream or request.path not in _REPORTS_USAGE_ON_REQUEST or not isinstance(fields, JsonObject):
        return request, False
    raw = fields.raw_values.get("stream_options")
    if raw is not None and bytes(memoryview(raw)[:_MAX_ASKING_BYTES]).translate(None, b" ") == _ASKING:
        return request, False
    options = None if raw is None else fields.get_short("stream_options", MAX_OPTIONS_BYTES)
    kept = options if isinstance(options, dict) else {}
    asking = fields.copy_with(
        "stream_options",
        {**{key: value for key, value in kept.items() if not _is_include_usage(key)}, "include_usage": True},
    )
    is_asked = kept.get("include_usage") is True
    return msgspec.structs.replace(request, body=asking.body, fields=asking), not is_asked


def _refuses_options(error: UpstreamRefused) -> bool:
    """Returns whether an upstream says that it does not know, or does not take, what the gateway has added."""
    said = (error.original_body or b"") + error.message.encode("utf-8", "replace")
    return error.status in (400, 404, 422, 500, 501) and (b"stream_options" in said or b"include_usage" in said)


def _is_include_usage(key: str) -> bool:
    """Returns whether a reader that ignores case, or an underscore, would take the key for ``include_usage``."""
    return key.casefold().replace("_", "").replace("-", "") == "includeusage"
