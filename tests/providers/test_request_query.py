"""The query of a request with a JSON body: what chooses a version of the API, and nothing that chooses a model."""

import pytest

from gateway.providers.request_query import forwarded_query
from tests.support.gateway import KEY, StartGateway
from tests.support.upstream import StartUpstream
from tests.support.wire import post, talk


@pytest.mark.parametrize(
    ("query", "forwarded"),
    [
        ("", ""),
        ("model=dear", ""),
        ("model=dear&beta=true&api-version=2024-02-01", "beta=true&api-version=2024-02-01"),
        ("%62eta=true&Beta=1&BETA=1", "beta=true"),
        ("beta=true;model=dear", "beta=true%3Bmodel%3Ddear"),
        ("beta=a%26model%3Ddear", "beta=a%26model%3Ddear"),
        ("beta=a%0d%0aX", "beta=a%0D%0AX"),
        (f"beta={'x' * 65}", ""),
        ("beta", "beta="),
        ("&&=&", ""),
    ],
)
def test_parameters_by_allow_list(query: str, forwarded: str) -> None:
    assert forwarded_query(query) == forwarded


@pytest.mark.parametrize(
    "path", ["chat/completions", "completions", "embeddings", "responses", "moderations", "messages"]
)
async def test_the_upstream_sees_no_other_parameter(
    start_gateway: StartGateway, start_upstream: StartUpstream, path: str
) -> None:
    upstream = await start_upstream(b'{"choices":[]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    assert (await talk(gateway.port, post(f"/v1/{path}?model=dear&beta=true&n=9", b'{"model":"m"}'))).status == 200
    assert [received.target for received in upstream.requests] == [f"/v1/{path}?beta=true"]
