"""Providers by name: built-in ones, those of other packages, and names that none has or several have."""

import sys
from pathlib import Path

import pytest

from gateway.providers import registry
from gateway.providers.echo import provider
from tests.support.gateway import KEY, running_gateway
from tests.support.reply import check_error

MODULE = """
from gateway.providers.base import JSON, ProviderResponse


class Parrot:
    name = "parrot"

    def __init__(self, config):
        self.config = config
        self.closed = False

    async def send(self, request):
        if request.model == "broken":
            raise RuntimeError("secret inside")
        return ProviderResponse(200, JSON, b'{"said":"' + request.path.encode() + b'"}')

    async def models(self):
        return [{"id": "polly", "object": "model", "created": 1, "owned_by": "me"}]

    async def aclose(self):
        self.closed = True


def create(config):
    return Parrot(config)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, into which packages can be installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, package: str, *points: str, module: str = MODULE) -> None:
    (site / f"{package}.py").write_text(module)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[gateway.providers]", *points]))
    sys.modules.pop(package, None)


async def test_a_provider_of_another_package_is_used(tmp_path: Path, site: Path) -> None:
    install(site, "parrot_backend", "parrot = parrot_backend:create")
    assert registry.names() == ["echo", "openai", "parrot"]
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_BACKEND="parrot") as gateway:
        reply = await gateway.post()
        assert (reply.status, reply.body) == (200, b'{"said":"chat/completions"}')
        reply = await gateway.post("/v1/engines/polly/embeddings", b"{}")
        assert reply.json() == {"said": "embeddings"}
        broken = await gateway.post(body=b'{"model":"broken"}')
        check_error(broken, 500, "server_error", "internal_error")
        assert gateway.app.backend_name == "parrot"
        parrot = gateway.app.provider
    assert parrot.closed  # type: ignore[attr-defined]


def test_built_in_providers_are_found() -> None:
    assert registry.find("echo") is provider.create
    assert registry.find("openai").__module__ == "gateway.providers.openai.provider"


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(registry.UnknownProvider, match="there is no backend 'ecko'; there are echo, openai"):
        registry.find("ecko")


def test_a_name_that_two_packages_register_is_refused(site: Path) -> None:
    install(site, "first_backend", "parrot = first_backend:create")
    install(site, "second_backend", "parrot = second_backend:create")
    with pytest.raises(registry.UnknownProvider, match="more than once: first_backend:create, second_backend:create"):
        registry.find("parrot")


def test_a_built_in_provider_cannot_be_replaced(site: Path) -> None:
    install(site, "evil_backend", "openai = evil_backend:create")
    with pytest.raises(registry.UnknownProvider, match="more than once"):
        registry.find("openai")


def test_our_own_entry_points_are_not_duplicates(site: Path) -> None:
    install(
        site,
        "gateway_itself",
        "echo = gateway.providers.echo.provider:create",
        "openai = gateway.providers.openai.provider:create",
    )
    assert registry.find("echo") is provider.create


@pytest.mark.parametrize("point", ["parrot = no_such_module:create", "parrot = odd_backend:no_such_function"])
def test_a_provider_that_cannot_be_loaded_is_refused_with_the_reason(site: Path, point: str) -> None:
    install(site, "odd_backend", point)
    with pytest.raises(registry.UnknownProvider, match="the backend 'parrot' cannot be loaded from"):
        registry.find("parrot")


def test_an_attribute_of_an_attribute_is_found(site: Path) -> None:
    """Entry points may name an attribute of an attribute, and extras; the packaging standard allows both."""
    install(site, "nested_backend", "parrot = nested_backend:Maker.create", module=MODULE + "\n\nclass Maker:\n"
            "    create = staticmethod(create)\n")  # fmt: skip
    assert callable(registry.find("parrot"))
