"""Backends by name. The built-in ones are import strings, so that one which is not used is not imported; others come
through the entry-point group ``gateway.providers``, by the same loader."""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from types import MappingProxyType

from gateway.providers.base import CreateProvider

GROUP = "gateway.providers"
BUILT_IN = MappingProxyType(
    {
        "echo": "gateway.providers.echo.provider:create",
        "openai": "gateway.providers.openai.provider:create",
    }
)


class UnknownProvider(ValueError):
    """No backend of that name, or more than one."""


def names() -> list[str]:
    return sorted({*BUILT_IN, *(point.name for point in _foreign())})


def find(name: str) -> CreateProvider:
    """The function that creates the backend. Raises UnknownProvider, with the list of those that exist."""
    offers = {point.value for point in _foreign() if point.name == name}
    if name in BUILT_IN:
        offers.add(BUILT_IN[name])
    if not offers:
        raise UnknownProvider(f"there is no backend {name!r}; there are {', '.join(names())}")
    if len(offers) > 1:
        raise UnknownProvider(f"the backend {name!r} is offered more than once: {', '.join(sorted(offers))}")
    return _load(name, offers.pop())


def _load(name: str, reference: str) -> CreateProvider:
    module, _, attribute = reference.partition(":")
    try:
        create: CreateProvider = attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise UnknownProvider(f"the backend {name!r} cannot be loaded from {reference}: {error}") from error
    return create


def _foreign() -> list[EntryPoint]:
    """When this project is installed as a package, its own entry points are among them: they are the built-in ones."""
    own = set(BUILT_IN.values())
    return [point for point in entry_points(group=GROUP) if point.value not in own]
