"""What is counted. One object a process; labels come from small fixed sets, and each is resolved once."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests_total", "Requests answered", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "gateway_request_seconds",
            "From the request's head to the answer's end",
            ("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge("gateway_requests_in_flight", "Requests being answered", registry=self.registry)
        self.token_store_up = Gauge(
            "gateway_token_store_up", "1 while the token file is readable, else 0", registry=self.registry
        )
        self.use_write_failures = Counter(
            "gateway_token_use_write_failures_total",
            "Failed attempts to write last-used times; they are kept and tried again",
            registry=self.registry,
        )
        self.uses_waiting = Gauge(
            "gateway_token_uses_waiting", "Tokens whose last use is not written yet", registry=self.registry
        )
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """``route`` is a row of the route table, never a path that a client made up."""
        children = self._children.get((route, status))
        if children is None:
            children = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._children[route, status] = children
        children[0].inc()
        children[1].observe(seconds)

    def page(self) -> bytes:
        """The Prometheus text exposition."""
        return generate_latest(self.registry)
