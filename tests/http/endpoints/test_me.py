"""``GET /api/me``: who am I, what may I do, what is left?"""

import pytest

from tests.support.gateway import KEY, StartGateway
from tests.support.reply import check_error
from tests.support.token_api import ANN, INVALID, TokenApi


async def test_a_token_sees_itself_and_the_limits_of_its_parents(api: TokenApi) -> None:
    parent = await api.create(owner=ANN, limits={"rpm": 10}, models=["gpt-*"])
    child = await api.create(parent["token"], name="child", limits={"rpm": 2})
    me = await api.call("GET", "/api/me", secret=child["token"])
    assert (me["kind"], me["name"], me["role"], me["owner"]) == ("token", "child", "member", ANN)
    assert me["models"] == ["gpt-*"]
    assert [one["token_id"] for one in me["limits"]] == [child["id"], parent["id"]]
    assert [(one["limit"], one["used"]) for one in me["left"]] == [(2, 0), (10, 0)]
    assert me["token"]["id"] == child["id"]


async def test_the_environment_key_has_no_token(api: TokenApi) -> None:
    me = await api.call("GET", "/api/me")
    assert (me["kind"], me["name"], me["role"], me["token"]) == ("environment", "environment", "admin", None)
    assert (me["models"], me["limits"], me["left"], me["expires_at"], me["is_test"]) == (None, [], [], None, False)


async def test_in_open_mode_it_says_so(start_gateway: StartGateway) -> None:
    me = (await (await start_gateway()).get("/api/me")).json()
    assert (me["kind"], me["name"]) == ("open", "open")


@pytest.mark.parametrize("query", ["?x=1", "?token=a&token=b"])
async def test_there_is_nothing_to_ask_for(api: TokenApi, query: str) -> None:
    reply = await api.request("GET", f"/api/me{query}", secret=KEY)
    assert reply.status == 400
    check_error(reply, 400, INVALID, reply.json()["error"]["code"])
