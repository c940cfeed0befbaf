"""Loads settings to see what is wrong with them."""

from gateway.config import settings
from gateway.config.settings import ConfigurationError

SECRETS = ("FREEGPT_API_KEY", "OPENAI_API_KEY", "GATEWAY_UPSTREAM_API_KEY")


def problems(**values: str) -> list[str]:
    try:
        settings.load(values)
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []
