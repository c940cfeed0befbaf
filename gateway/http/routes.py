"""The route table: every route, what it requires of the caller, and its endpoint."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.admin.tokens import TokenManagement
from gateway.admin.user_keys import UserKeys
from gateway.auth.authenticator import Authenticator
from gateway.auth.roles import Access
from gateway.core.bounded_threads import BoundedThreads
from gateway.http.context import Route
from gateway.http.endpoints.check import CheckEndpoints
from gateway.http.endpoints.health import HealthCheck, HealthEndpoints
from gateway.http.endpoints.me import MeEndpoints
from gateway.http.endpoints.openai import OpenAIEndpoints
from gateway.http.endpoints.openapi import OpenApiEndpoints
from gateway.http.endpoints.pass_through import PassThroughEndpoints
from gateway.http.endpoints.tokens import TokenEndpoints
from gateway.http.endpoints.usage import UsageEndpoints
from gateway.http.endpoints.user_keys import UserKeyEndpoints
from gateway.http.error_formats import anthropic_error, anthropic_event, responses_event
from gateway.http.ip_rate_limit import IpRateLimit
from gateway.inference.admission import Admission
from gateway.inference.service import Inference
from gateway.routing.object_access import ObjectAccess
from gateway.usage.reports import UsageReports

GET = ("GET", "HEAD")
POST = ("POST",)
PATCH = ("PATCH",)
DELETE = ("DELETE",)
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

ANTHROPIC = (anthropic_error, anthropic_event)


class Services(NamedTuple):
    """What the endpoints work with."""

    inference: Inference
    objects: ObjectAccess
    admission: Admission
    management: TokenManagement
    reports: UsageReports
    reads: BoundedThreads
    """The threads of reports and of long lists."""
    authenticator: Authenticator
    ip_rate_limit: IpRateLimit
    health: HealthCheck
    metrics_page: Callable[[], bytes]
    max_body_bytes: int
    pass_through: tuple[str, ...]
    """Beginnings of paths below ``/v1/`` that tokens which are not admins may use."""


class Endpoints(NamedTuple):
    """All endpoints, by subject."""

    openai: OpenAIEndpoints
    pass_through: PassThroughEndpoints
    tokens: TokenEndpoints
    user_keys: UserKeyEndpoints
    me: MeEndpoints
    check: CheckEndpoints
    usage: UsageEndpoints
    openapi: OpenApiEndpoints
    health: HealthEndpoints


def make_endpoints(services: Services) -> Endpoints:
    """Makes all endpoints."""
    admission, management, reports = services.admission, services.management, services.reports
    openai = OpenAIEndpoints(services.inference, services.objects, services.max_body_bytes)
    return Endpoints(
        openai,
        PassThroughEndpoints(
            openai.run, openai.run_form, services.max_body_bytes, services.objects, services.pass_through
        ),
        TokenEndpoints(management, reports, services.authenticator, services.ip_rate_limit, services.reads),
        UserKeyEndpoints(UserKeys(management), admission),
        MeEndpoints(management, admission),
        CheckEndpoints(services.inference.catalog, admission),
        UsageEndpoints(management, reports),
        OpenApiEndpoints(),
        HealthEndpoints(services.health, services.metrics_page),
    )


def routes(to: Endpoints) -> tuple[Route, ...]:
    """Returns the rows. The first pattern that fits wins; rows of one pattern differ in their methods."""
    return (
        Route(GET, "/healthz", Access.PUBLIC, to.health.healthz),
        Route(GET, "/readyz", Access.PUBLIC, to.health.readyz),
        Route(GET, "/metrics", Access.ADMIN_OR_LOOPBACK, to.health.metrics),
        Route(GET, "/openapi.json", Access.PUBLIC, to.openapi.openapi),
        Route(GET, "/docs", Access.PUBLIC, to.openapi.page),
        Route(POST, "/api/tokens/validate", Access.PUBLIC, to.tokens.validate),
        Route(POST, "/api/tokens/revoke", Access.PUBLIC, to.tokens.revoke_secret),
        Route(GET, "/api/tokens", Access.ANY, to.tokens.list),
        Route(POST, "/api/tokens", Access.MANAGE, to.tokens.create),
        Route(GET, "/api/tokens/{id}", Access.ANY, to.tokens.read),
        Route(PATCH, "/api/tokens/{id}", Access.MANAGE, to.tokens.update),
        Route(DELETE, "/api/tokens/{id}", Access.MANAGE, to.tokens.delete),
        Route(POST, "/api/tokens/{id}/revoke", Access.MANAGE, to.tokens.revoke),
        Route(POST, "/api/tokens/{id}/rotate", Access.MANAGE, to.tokens.rotate),
        Route(GET, "/api/tokens/{id}/usage", Access.ANY, to.tokens.usage),
        Route(GET, "/api/me", Access.ANY, to.me.read),
        Route(POST, "/api/check", Access.ANY, to.check.check),
        Route(GET, "/api/usage", Access.ANY, to.usage.read),
        Route(POST, "/api/user/key", Access.MANAGE, to.user_keys.create),
        Route(GET, "/api/user/key/{email}", Access.ANY, to.user_keys.read),
        Route(DELETE, "/api/user/key/{email}", Access.MANAGE, to.user_keys.revoke),
        Route(GET, "/api/user/usage/{email}", Access.ANY, to.user_keys.usage),
        Route(POST, "/v1/chat/completions", Access.INFERENCE, to.openai.json_endpoint),
        Route(POST, "/v1/completions", Access.INFERENCE, to.openai.json_endpoint),
        Route(POST, "/v1/embeddings", Access.INFERENCE, to.openai.json_endpoint),
        Route(POST, "/v1/responses", Access.INFERENCE, to.openai.json_endpoint, error_event=responses_event),
        Route(GET, "/v1/models", Access.INFERENCE, to.openai.models),
        Route(GET, "/v1/models/{model...}", Access.INFERENCE, to.openai.model),
        Route(POST, "/v1/engines/{model}/{endpoint...}", Access.INFERENCE, to.openai.engine),
        Route(POST, "/engines/{model}/{endpoint...}", Access.INFERENCE, to.openai.engine),
        Route(POST, "/openai/deployments/{model}/{endpoint...}", Access.INFERENCE, to.openai.engine),
        Route(ANY_METHOD, "/v1/messages", Access.INFERENCE, to.pass_through.pass_through, *ANTHROPIC),
        Route(ANY_METHOD, "/v1/messages/{rest...}", Access.INFERENCE, to.pass_through.pass_through, *ANTHROPIC),
        Route(
            ANY_METHOD,
            "/v1/responses/{rest...}",
            Access.INFERENCE,
            to.pass_through.pass_through,
            error_event=responses_event,
        ),
        Route(ANY_METHOD, "/v1/{rest...}", Access.INFERENCE, to.pass_through.pass_through),
    )
