"""The composition root: the only place where the parts meet. Nothing here decides anything about a request."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gateway.admin.tokens import TokenManagement
from gateway.admin.user_keys import UserKeys
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.auth.authenticator import Authenticator
from gateway.auth.client_address import Client
from gateway.auth.principal import Mode, Principal
from gateway.auth.roles import Access
from gateway.config.settings import Settings
from gateway.core.clock import SteadyClock
from gateway.core.errors import Draining, Unauthenticated
from gateway.core.json_body import MAX_MODEL_LENGTH
from gateway.core.tasks import BackgroundTasks
from gateway.http.context import RequestContext
from gateway.http.disconnects import watch_disconnects
from gateway.http.endpoints.check import CheckEndpoints
from gateway.http.endpoints.health import Health, HealthEndpoints
from gateway.http.endpoints.me import MeEndpoints
from gateway.http.endpoints.openai import OpenAIEndpoints
from gateway.http.endpoints.openapi import OpenApiEndpoints
from gateway.http.endpoints.tokens import TokenEndpoints
from gateway.http.endpoints.usage import UsageEndpoints
from gateway.http.endpoints.user_keys import UserKeyEndpoints
from gateway.http.in_flight import InFlightRequests
from gateway.http.middleware.access_log import AccessLog
from gateway.http.middleware.authentication import Gate, GateRules
from gateway.http.middleware.ip_rate_limit import IpRateLimit
from gateway.http.pipeline import Pipeline, PipelineRules
from gateway.http.routes import Endpoints, Router, routes
from gateway.inference.admission import Admission, AdmissionRules
from gateway.inference.service import Backends, Inference, MeteringRules
from gateway.limits.limiter import Limiter
from gateway.limits.store import CounterStore
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.observability.logging import LineWriter, wants_json
from gateway.observability.metrics import Metrics
from gateway.observability.redaction import Redactor, cached_redactor
from gateway.observability.shared_metrics import SharedMetrics
from gateway.providers import registry
from gateway.providers.base import Provider, ProviderConfig
from gateway.storage.shared_memory import SharedLatch, shared_floats
from gateway.tokens.cache import FileState, TokenCache
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.last_used import LastUsedWriter, UseKey
from gateway.tokens.models import Status
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.usage.ledger import Ledger
from gateway.usage.pricing.prices import load_prices, packaged_prices, read_price_table
from gateway.usage.reports import UsageReports
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore

LOCK_SECONDS = 2.0
STORE_LOOK_SECONDS = 0.5
PUBLIC_REQUESTS_PER_MINUTE = 60


class WorkerShared(NamedTuple):
    """What all workers have together, made before they are forked; and which of them this is."""

    enforcement: SharedLatch
    clock: Callable[[], float]
    ip_rate_limit: IpRateLimit
    metrics: SharedMetrics
    worker: int = 0

    @staticmethod
    def new(workers: int = 1) -> "WorkerShared":
        return WorkerShared(
            SharedLatch(),
            SteadyClock(latest=shared_floats(1)),
            IpRateLimit(PUBLIC_REQUESTS_PER_MINUTE),
            SharedMetrics(workers),
        )


class App:
    """A gateway without its socket. Made inside the running event loop; ``start`` and ``stop`` bracket its life."""

    def __init__(
        self,
        settings: Settings,
        *,
        backend: Provider | None = None,
        clock: Callable[[], float] | None = None,
        shared: WorkerShared | None = None,
    ) -> None:
        """``shared`` is what all workers have together; ``clock`` goes before its clock.

        Raises TokenFileError or OSError for a damaged token file, UnknownProvider or ValueError for the backend."""
        shared = shared or WorkerShared.new()
        self._clock = clock or shared.clock
        self._metrics = Metrics(shared.metrics, shared.worker)
        self._tasks = BackgroundTasks()
        file = JsonTokenFile(settings.tokens_file, LOCK_SECONDS)
        self.token_cache = TokenCache(file)
        self.token_cache.load()
        audit = AuditLog(settings.data_dir / AUDIT_FILE, self._clock, LOCK_SECONDS)
        self._management = TokenManagement(TokenService(file, audit, self._clock), self.token_cache, self._clock)
        self._ip_rate_limit = shared.ip_rate_limit
        self.last_used = LastUsedWriter(file, self._metrics)
        self.counters = _counters(settings, self._clock)
        self.limiter = Limiter(self.counters, self._clock, settings.queue_size, self._metrics.queued.set)
        self._usage_store = SqliteUsageStore(settings.data_dir / LEDGER_FILE)
        self.ledger = Ledger(self._usage_store, self._metrics, settings.usage_days, self._clock)
        config = _backend_config(settings)
        self.provider = backend or registry.find(settings.backend)(config)
        self._test_backend = registry.find("echo")(config)
        self._authenticator = Authenticator(
            settings.environment_key,
            self.token_cache,
            self._clock,
            shared.enforcement,
            settings.allow_open,
        )
        self.token_cache.subscribe(self._authenticator.on_tokens_changed)
        self.token_cache.subscribe(self._cut_dead_tokens)
        self._counters_up, self._ledger_up = self._metrics.store_gauge("counters"), self._metrics.store_gauge("ledger")
        self.in_flight = InFlightRequests(self._metrics.in_flight.set)
        self.pipeline = self._pipeline(settings)

    def _pipeline(self, settings: Settings) -> Pipeline:
        redactor = Redactor(settings.secrets)
        admission, reports = self._admission(settings), UsageReports(self._usage_store)
        inference = Inference(
            Backends(self.provider, self._test_backend),
            settings.model_aliases,
            admission,
            self.ledger,
            MeteringRules(self._clock, settings.stream_usage, cached_redactor(redactor, MAX_MODEL_LENGTH)),
        )
        handlers = Endpoints(
            OpenAIEndpoints(inference, settings.max_body_bytes),
            TokenEndpoints(self._management, reports, self._authenticator, self._ip_rate_limit),
            UserKeyEndpoints(UserKeys(self._management), admission),
            MeEndpoints(self._management, admission),
            CheckEndpoints(admission),
            UsageEndpoints(self._management, reports),
            OpenApiEndpoints(),
            HealthEndpoints(self.health, self._metrics_page),
        )
        rules = GateRules(settings.trusted_proxies, settings.allow_open, settings.query_token, settings.cors_origins)
        gate = Gate(Router(routes(handlers)), self._authenticator, rules, self._note_use)
        lines = LineWriter(sys.stderr) if settings.log_level in ("debug", "info") else None
        observer = AccessLog(self._metrics, lines, redactor, wants_json(settings.log_format, sys.stderr))
        return Pipeline(
            gate, self.token_cache.refresh, observer, self.in_flight, PipelineRules(settings.cors_origins, redactor)
        )

    def _admission(self, settings: Settings) -> Admission:
        """Raises ValueError for a table of prices that is none."""
        prices = load_prices(packaged_prices(), read_price_table(settings.prices))
        rules = AdmissionRules(settings.model_aliases, settings.completion_tokens, settings.queue_seconds)
        return Admission(self.limiter, self.counters, prices, rules, self._metrics.count_refusal)

    @property
    def mode(self) -> Mode:
        return self._authenticator.mode

    @property
    def backend_name(self) -> str:
        return self.provider.name

    def health(self) -> Health:
        problem = "draining" if self.pipeline.draining else None
        if self.token_cache.state is not FileState.CURRENT:
            problem = (
                "the token file is gone" if self.token_cache.state is FileState.GONE else "the token file is damaged"
            )
        return Health(self.mode.value, self.backend_name, problem)

    async def start(self) -> None:
        self._tasks.keep(self.token_cache.run, "watch the token file")
        self._tasks.keep(self.last_used.run, "write last-used times")
        self._tasks.keep(partial(watch_disconnects, self.in_flight), "notice clients that have gone")
        self._tasks.keep(self.counters.run, "keep the counters")
        self._tasks.keep(self.limiter.run, "serve waiting requests")
        self._tasks.keep(self.ledger.run, "write the ledger")
        self._tasks.keep(self._keep_telling, "tell the metrics of the stores")

    def look_at_tokens(self) -> None:
        """Read the token file now instead of at the next look."""
        self._tasks.start(self.token_cache.refresh(), "look at the token file")

    async def drain(self, seconds: float) -> None:
        """Take no new requests, let the running ones end, and after ``seconds`` end them."""
        self.pipeline.draining = True
        if await self.in_flight.wait_idle(seconds):
            return
        self.in_flight.cut(Draining(), lambda ctx: True)
        await self.in_flight.wait_idle(5.0)

    async def stop(self) -> None:
        """Write what waits and close what is open."""
        await self._tasks.aclose()
        await self.last_used.drain()
        await self.counters.aclose()
        await self.ledger.drain()
        await self.provider.aclose()
        await self._test_backend.aclose()

    async def _keep_telling(self) -> None:
        """Whichever worker is asked for the metrics cannot ask the others."""
        while True:
            self._tell_of_stores()
            await asyncio.sleep(STORE_LOOK_SECONDS)

    def _tell_of_stores(self) -> None:
        self._metrics.token_store_up.set(self.token_cache.state is FileState.CURRENT)
        self._counters_up.set(self.counters.is_up)
        self._ledger_up.set(self.ledger.is_up)
        self._metrics.settlements_waiting.set(self.counters.pending)

    def _metrics_page(self) -> bytes:
        self._tell_of_stores()
        return self._metrics.render()

    def _note_use(self, principal: Principal, client: Client) -> None:
        match = principal.secret_match
        if match is None:
            return
        if match.previous is None:
            self.last_used.note(UseKey(match.record.id), self._clock())
        else:
            self.last_used.note(UseKey(match.record.id, match.previous.hash), self._clock(), client.address)

    def _cut_dead_tokens(self, view: TokenHierarchy) -> None:
        """What runs on a secret that has been revoked or deleted ends now; expiry lets what has begun go on. Managing
        tokens is over in a moment, and a token may revoke itself."""

        def is_dead(ctx: RequestContext) -> bool:
            secret_hash = ctx.principal.secret_hash if ctx.principal else ""
            if not secret_hash or ctx.route is None or ctx.route.access is not Access.INFERENCE:
                return False
            match = view.find_by_digest(secret_hash)
            return match is None or view.secret_status(match, self._clock()) is Status.REVOKED

        error = Unauthenticated("Invalid API key provided: it has been revoked.", code="invalid_api_key")
        self.in_flight.cut(error, is_dead)


def _counters(settings: Settings, clock: Callable[[], float]) -> CounterStore:
    path = settings.data_dir / COUNTERS_FILE
    return SqliteCounterStore(path, clock) if settings.counters == "sqlite" else MemoryCounterStore(path)


def _backend_config(settings: Settings) -> ProviderConfig:
    return ProviderConfig(
        upstream_url=settings.upstream_url,
        upstream_api_key=settings.upstream_api_key,
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        chunk_timeout=settings.chunk_timeout,
    )
