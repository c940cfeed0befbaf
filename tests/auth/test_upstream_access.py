"""Who may use which route of the upstream."""

import pytest

from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Principal
from gateway.auth.upstream_access import check_upstream_access
from gateway.core.errors import Forbidden
from gateway.tokens.models import Role, SecretMatch
from tests.tokens.test_hierarchy import token

MEMBER = Principal("m", Role.MEMBER)
SERVICE = Principal("s", Role.SERVICE)


@pytest.mark.parametrize("caller", [MEMBER, SERVICE])
def test_inference_is_open_to_every_token(caller: Principal) -> None:
    for path in ("rerank", "moderations", "messages", "messages/count_tokens", "images/edits", "audio/speech"):
        check_upstream_access(caller, "POST", path, ())


@pytest.mark.parametrize("caller", [MEMBER, SERVICE])
@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "files", "files"),
        ("DELETE", "files/file-1", "files"),
        ("HEAD", "responses/resp_1", "responses"),
        ("POST", "responses/resp_1/cancel", "responses"),
        ("GET", "chat/completions/c1/messages", "chat/completions"),
        ("POST", "messages/batches", "messages/batches"),
        ("POST", "realtime/client_secrets", "realtime/client_secrets"),
        ("POST", "fine_tuning/jobs/x/cancel", "fine_tuning/jobs"),
        ("POST", "Moderations", "Moderations"),
        ("PUT", "moderations", "moderations"),
        ("GET", "rerank", "rerank"),
        ("POST", "rerank/x", "rerank"),
        ("POST", "anything", "anything"),
    ],
)
def test_anything_else_is_closed_and_the_message_says_how_to_open_it(
    caller: Principal, method: str, path: str, name: str
) -> None:
    with pytest.raises(Forbidden, match=f"GATEWAY_PASS_THROUGH={name}\\."):
        check_upstream_access(caller, method, path, ())


def test_what_is_opened_by_name_is_open_and_nothing_beside_it() -> None:
    for method, path in (("GET", "files"), ("DELETE", "files/file-1/content"), ("POST", "fine_tuning/jobs")):
        check_upstream_access(MEMBER, method, path, ("files", "fine_tuning/jobs"))
    for path in ("files2", "filesx/1", "Files", "fine_tuning", "fine_tuning/jobs2", "batches", "x/files"):
        with pytest.raises(Forbidden):
            check_upstream_access(MEMBER, "GET", path, ("files", "fine_tuning/jobs"))


@pytest.mark.parametrize("path", ["organization", "Organization/costs", "model/info", "%6Fodel", "key/generate"])
def test_the_account_is_never_open(path: str) -> None:
    for caller in (MEMBER, SERVICE):
        with pytest.raises(Forbidden):
            check_upstream_access(caller, "GET", path, ("organization", "model", "key", "Organization"))
    for caller in (ANONYMOUS, ENVIRONMENT_KEY, Principal("a", Role.ADMIN)):
        check_upstream_access(caller, "GET", path, ())


def test_a_token_without_models_reaches_nothing() -> None:
    """Nor does a child of such a token, or an admin's token of that kind."""
    none = token("none", models=[], role="admin")
    child = token("child", role="admin")
    for caller in (Principal.of(SecretMatch(none, None)), Principal.of(SecretMatch(child, None), (none,))):
        for method, path in (("POST", "rerank"), ("GET", "files")):
            with pytest.raises(Forbidden, match="may use no model"):
                check_upstream_access(caller, method, path, ("files",))
