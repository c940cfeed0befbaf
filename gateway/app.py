"""The composition root: the only place where the parts of a gateway meet. It decides nothing about a request."""

import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.admin.tokens import ChangeRules, TokenManagement
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.auth.authenticator import Authenticator
from gateway.auth.local_client import LocalClients
from gateway.auth.principal import Mode
from gateway.config.settings import Settings
from gateway.core.bounded_threads import BoundedThreads
from gateway.core.clock import MachineClock, SteadyClock
from gateway.core.json_body import MAX_MODEL_LENGTH
from gateway.core.tasks import BackgroundTasks
from gateway.http.body_memory import BodyMemory
from gateway.http.endpoints.health import HealthCheck
from gateway.http.ip_rate_limit import IpRateLimit, KeyedRateLimit
from gateway.http.middleware.access_log import AccessLog
from gateway.http.middleware.authentication import Authentication, AuthenticationRules
from gateway.http.middleware.base import Middleware
from gateway.http.middleware.body_limit import BodyLimit
from gateway.http.middleware.cors import Cors
from gateway.http.middleware.drain import Drain
from gateway.http.middleware.in_flight import InFlightRequests, RevocationListener, abort_environment_key
from gateway.http.pipeline import Pipeline
from gateway.http.request import Request
from gateway.http.routes import Services, make_endpoints, routes
from gateway.http.routing import Router, Routing
from gateway.inference.admission import Admission, AdmissionRules
from gateway.inference.service import Inference, UsageRules
from gateway.limits.limiter import Limiter
from gateway.limits.stores import open_counter_store
from gateway.observability.logging import LogWriter, wants_json
from gateway.observability.metrics import Metrics
from gateway.observability.redaction import Redactor, cached_redactor
from gateway.observability.shared_metrics import SharedMetrics
from gateway.observability.store_monitor import StoreMonitor, Watched
from gateway.providers import registry
from gateway.providers.base import CreateProvider, Provider, ProviderConfig
from gateway.routing.catalog import Catalog
from gateway.routing.object_access import ObjectAccess, ObjectRules
from gateway.routing.ownership import Ownership
from gateway.routing.stores.sqlite import OBJECTS_FILE, SqliteObjectStore
from gateway.storage.disk_reserve import DiskMonitor
from gateway.storage.shared_memory import SharedLatch, shared_floats
from gateway.tokens.cache import TokenCache
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.store import StoreState
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.usage.ledger import Ledger
from gateway.usage.pricing.prices import load_prices, packaged_prices, read_price_table
from gateway.usage.reports import UsageReports
from gateway.usage.stores.sqlite import LEDGER_FILE, SqliteUsageStore

LOCK_SECONDS = 2.0
PUBLIC_REQUESTS_PER_MINUTE = 60


class WorkerShared(NamedTuple):
    """What all workers share, made before they are forked; and which of them this is."""

    enforcement: SharedLatch
    clock: Callable[[], float]
    rate_clock: Callable[[], float]
    """For rates: a wall clock that jumps does not change it."""
    ip_rate_limit: IpRateLimit
    metrics: SharedMetrics
    changes: KeyedRateLimit
    worker: int = 0

    @staticmethod
    def new(workers: int = 1) -> "WorkerShared":
        """Makes it for this many workers."""
        return WorkerShared(
            SharedLatch(),
            SteadyClock(latest=shared_floats(1)),
            MachineClock(state=shared_floats(2)),
            IpRateLimit(PUBLIC_REQUESTS_PER_MINUTE),
            SharedMetrics(workers),
            KeyedRateLimit(),
        )


class App:
    """A gateway without its socket. It is made inside the running event loop; ``start`` and ``stop`` bracket its life."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider: Provider | None = None,
        clock: Callable[[], float] | None = None,
        shared: WorkerShared | None = None,
    ) -> None:
        """``clock`` replaces those in ``shared``.

        Raises UnknownProvider or ValueError for the provider, ValueError for an invalid table of prices.
        """
        shared = shared or WorkerShared.new()
        self._settings = settings
        self._clock = clock or shared.clock
        self._rate_clock = clock or shared.rate_clock
        self._shared = shared
        self._packaged_prices = packaged_prices()
        self._metrics = Metrics(shared.metrics, shared.worker)
        self._redactor = Redactor(settings.secrets)
        self._access_lines = LogWriter(sys.stderr)
        self._tasks = BackgroundTasks()
        self._make_tokens(shared)
        self._make_limits_and_usage()
        config = _provider_config(settings)
        self.provider = provider or registry.find(settings.backend)(config)
        self._test_provider = registry.find("echo")(config)
        self.in_flight = InFlightRequests()
        self.token_cache.subscribe(RevocationListener(self.in_flight, self._clock).on_tokens_changed)
        self._drain = Drain(self.in_flight)
        self.pipeline = Pipeline(self._middleware(), self._redactor, settings.trusted_proxies)

    def _make_tokens(self, shared: WorkerShared) -> None:
        settings = self._settings
        self._audit = AuditLog(settings.data_dir / AUDIT_FILE, self._clock, LOCK_SECONDS)
        file = JsonTokenFile(settings.tokens_file, LOCK_SECONDS)
        self.disk = DiskMonitor((self._audit.reserve, file.reserve))
        store = JsonTokenStore(file, self._audit, self._clock)
        self.token_cache = TokenCache(store)
        self._management = TokenManagement(
            store,
            self.token_cache,
            self._clock,
            ChangeRules(settings.max_children, settings.changes_per_minute, shared.changes.wait),
        )
        self.last_used = LastUsedWriter(store, self._metrics)
        key, is_open = settings.environment_key, settings.allow_open
        self._authenticator = Authenticator(key, self.token_cache, self._clock, shared.enforcement, is_open)

    def _make_limits_and_usage(self) -> None:
        settings = self._settings
        self.counters = open_counter_store(settings.counters, settings.data_dir, self._clock, self._rate_clock)
        self.limiter = Limiter(self.counters, self._clock, settings.queue_size, self._metrics.queued.set)
        self._usage_store = SqliteUsageStore(settings.data_dir / LEDGER_FILE, report_seconds=settings.report_seconds)
        self.ledger = Ledger(self._usage_store, self._metrics, settings.usage_days, self._clock)
        self.ownership = Ownership(
            SqliteObjectStore(settings.data_dir / OBJECTS_FILE),
            settings.object_days,
            self._clock,
            self._metrics.object_store_failures.inc,
        )
        self._store_monitor = StoreMonitor(
            (
                Watched(self._metrics.token_store_up, lambda: self.token_cache.state is StoreState.CURRENT),
                Watched(self._metrics.store_gauge("counters"), lambda: self.counters.is_up),
                Watched(self._metrics.store_gauge("ledger"), lambda: self.ledger.is_up),
                Watched(self._metrics.store_gauge("objects"), lambda: self.ownership.is_up),
                Watched(self._metrics.store_gauge("disk"), lambda: self.disk.problem is None),
                Watched(self._metrics.audit_log_bytes, lambda: self.disk.file_bytes.get(self._audit.path, 0)),
                Watched(self._metrics.in_flight, lambda: len(self.in_flight)),
                Watched(self._metrics.settlements_waiting, lambda: self.counters.pending),
            )
        )

    def _middleware(self) -> tuple[Middleware, ...]:
        """The steps of a request, in the order in which it meets them."""
        settings = self._settings
        lines = self._access_lines if settings.log_level in ("debug", "info") else None
        rules = AuthenticationRules(
            settings.query_token,
            LocalClients(settings.allowed_hosts, settings.cors_origins),
            bool(settings.trusted_proxies),
        )
        return (
            self.in_flight,
            AccessLog(self._metrics, lines, self._redactor, wants_json(settings.log_format, sys.stderr)),
            *([Cors(settings.cors_origins)] if settings.cors_origins else []),
            Routing(Router(routes(make_endpoints(self._services())))),
            Authentication(self._authenticator, rules, self.token_cache.refresh, self.last_used, self._clock),
            self._drain,
            BodyLimit(BodyMemory(settings.max_bodies_bytes, settings.queue_seconds)),
        )

    def _services(self) -> Services:
        settings = self._settings
        prices = load_prices(self._packaged_prices, read_price_table(settings.prices))
        catalog = Catalog(self.provider, self._test_provider, settings.model_aliases, prices)
        rules = AdmissionRules(settings.completion_tokens, settings.queue_seconds)
        admission = Admission(self.limiter, self.counters, rules, self._metrics.count_refusal)
        redact_model = cached_redactor(self._redactor, MAX_MODEL_LENGTH)
        object_rules = ObjectRules(
            settings.pass_through, lambda principal: catalog.provider_for(principal).name, self._clock
        )
        usage_rules = UsageRules(self._clock, settings.stream_usage, redact_model)
        reads = BoundedThreads("reports")
        return Services(
            Inference(catalog, admission, self.ledger, usage_rules),
            ObjectAccess(self.ownership, object_rules),
            admission,
            self._management,
            UsageReports(self._usage_store, reads),
            reads,
            self._authenticator,
            self._shared.ip_rate_limit,
            HealthCheck(
                self._authenticator,
                self.token_cache,
                lambda: self._drain.is_draining,
                self._store_problem,
                self.backend_name,
            ),
            self._metrics_page,
            settings.max_body_bytes,
            settings.pass_through,
        )

    @property
    def handle(self) -> Callable[[Request], Awaitable[None]]:
        """The function that answers a request."""
        return self.pipeline.handle

    @property
    def mode(self) -> Mode:
        return self._authenticator.mode

    @property
    def backend_name(self) -> str:
        return self.provider.name

    def _store_problem(self) -> str | None:
        """Returns all the reasons why not every request can be served or recorded."""
        ledger = None if self.ledger.is_up else "the ledger cannot be written"
        return "; ".join(filter(None, (self.disk.problem, self.counters.problem, ledger))) or None

    def _metrics_page(self) -> bytes:
        self._store_monitor.update()
        return self._metrics.render()

    async def start(self) -> None:
        """Reads the tokens and starts the background tasks. Raises TokensDamaged or OSError for a damaged token file."""
        await self.token_cache.load()
        self._tasks.keep(self.token_cache.run, "watch the token file")
        self._tasks.keep(self.disk.run, "watch the disk")
        self._tasks.keep(self.last_used.run, "write last-used times")
        self._tasks.keep(self.in_flight.watch_disconnects, "notice clients that have disconnected")
        self._tasks.keep(self.counters.run, "keep the counters")
        self._tasks.keep(self.limiter.run, "serve waiting requests")
        self._tasks.keep(self.ledger.run, "write the ledger")
        self._tasks.keep(self.ownership.run, "write who made which object")
        self._tasks.keep(self._store_monitor.run, "update the metrics of the stores")

    def reload(self, settings: Settings, create: CreateProvider) -> None:
        """Answers requests that begin from now on by other settings. Raises as the constructor does; then nothing has changed."""
        before, unused = dict(vars(self)), self.provider
        try:
            self._use(settings, create)
        except BaseException:
            unused = self.provider
            vars(self).update(before)
            raise
        finally:
            if unused is not self.provider:
                self._tasks.start(self.in_flight.after_present(unused.aclose), "close the unused provider")
        # Last of all, because it cannot fail and cannot be undone: a key ends open mode for good.
        self._authenticator.use(settings.environment_key, settings.allow_open)
        abort_environment_key(self.in_flight, before["_settings"].environment_key, settings.environment_key)
        self.reload_tokens()

    def _use(self, settings: Settings, create: CreateProvider) -> None:
        old, self._settings, self._redactor = self._settings, settings, Redactor(settings.secrets)
        if (old.backend, _provider_config(old)) != (settings.backend, config := _provider_config(settings)):
            self.provider = create(config)
        self.pipeline = Pipeline(self._middleware(), self._redactor, settings.trusted_proxies)

    def reload_tokens(self) -> None:
        """Reads the token file now instead of at the next poll."""
        self._tasks.start(self.token_cache.refresh(), "reload the token file")

    def announce_drain(self) -> None:
        """Makes ``/readyz`` answer 503 while requests are still served."""
        self._drain.announce()

    async def drain(self, seconds: float) -> None:
        """Refuses new requests, lets the running ones end, and aborts them after ``seconds``."""
        await self._drain.drain(seconds)

    async def stop(self) -> None:
        """Writes what waits and closes what is open."""
        await self._tasks.aclose()
        await self.last_used.drain()
        await self.counters.aclose()
        await self.ledger.drain()
        await self.ownership.aclose()
        await self.provider.aclose()
        await self._test_provider.aclose()
        self._access_lines.close()


def _provider_config(settings: Settings) -> ProviderConfig:
    times = settings.connect_timeout, settings.first_byte_timeout, settings.chunk_timeout
    return ProviderConfig(settings.upstream_url, settings.upstream_api_key, *times)
