"""Finds providers by name: the built-in ones, and those that packages register in the entry-point group ``gateway.providers``.

Both are import strings and are loaded in the same way, so that a provider that is not used is not imported.
"""

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
    """Tells that no provider has that name, that several have it, or that it cannot be loaded."""


def names() -> list[str]:
    """Returns the names of all providers, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in _third_party())})


def find(name: str) -> CreateProvider:
    """Returns the function that creates the provider. Raises UnknownProvider, with the list of those that exist."""
    references = {point.value for point in _third_party() if point.name == name}
    if name in BUILT_IN:
        references.add(BUILT_IN[name])
    if not references:
        raise UnknownProvider(f"there is no backend {name!r}; there are {', '.join(names())}")
    if len(references) > 1:
        raise UnknownProvider(f"the backend {name!r} is offered more than once: {', '.join(sorted(references))}")
    return _load(name, references.pop())


def _load(name: str, reference: str) -> CreateProvider:
    module, _, attribute = reference.partition(":")
    try:
        create: CreateProvider = attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise UnknownProvider(f"the backend {name!r} cannot be loaded from {reference}: {error}") from error
    return create


def _third_party() -> list[EntryPoint]:
    """Returns the entry points of other packages: an installed gateway registers its built-in providers, too."""
    built_in = set(BUILT_IN.values())
    return [point for point in entry_points(group=GROUP) if point.value not in built_in]
