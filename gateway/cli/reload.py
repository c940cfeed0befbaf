"""Reloads the settings of a gateway that runs, all or nothing, and logs what is different."""

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.cli.difference import Change, difference, with_reloadable
from gateway.config.settings import ConfigurationError, Settings
from gateway.core.threads import Threads
from gateway.observability import logging as gateway_logging
from gateway.providers import registry
from gateway.providers.base import CreateProvider

log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """An application whose settings can be replaced."""

    def reload(self, settings: Settings, create: CreateProvider) -> None:
        """Uses other settings, or raises ValueError and goes on as before. ``create`` makes the provider."""


class Reloader:
    """Knows the settings that are in force."""

    def __init__(self, loaded: Settings, load: Callable[[], Settings]) -> None:
        """``load`` reads and checks the settings, blocking; it raises ConfigurationError."""
        self.settings = loaded
        self._load = load
        self._threads = Threads("reload")

    def reload(self) -> bool:
        """Loads the settings, and returns whether they can be used. What was in force before stays so otherwise. Blocking."""
        try:
            found = self._load()
        except ConfigurationError as error:
            problems = [str(problem) for problem in error.problems]
            log.error("the settings are not reloaded, those from before stay in force", extra={"problems": problems})
            return False
        changes = difference(self.settings, found)
        self.settings = with_reloadable(self.settings, found)
        self._log(changes)
        return True

    async def reload_app(self, app: Reloadable) -> None:
        """Loads the settings and makes an application use them. Where it cannot, nothing changes."""
        before = self.settings
        if not await self._threads.run(self.reload):
            return
        create = await self._threads.run(registry.find, self.settings.backend)
        try:
            app.reload(self.settings, create)
        except ValueError as error:
            self.settings = before
            log.error(
                "the settings are not reloaded, those from before stay in force", extra={"problems": [str(error)]}
            )
            return
        settings = self.settings
        gateway_logging.configure(settings.log_format, settings.log_level, settings.secrets)

    def _log(self, changes: list[Change]) -> None:
        made = [str(change) for change in changes if not change.needs_restart]
        waiting = [change for change in changes if change.needs_restart]
        log.warning("the settings are reloaded", extra={"changes": made or "none"})
        if waiting:
            log.warning(
                "these settings change at the next start only", extra={"changes": [str(one) for one in waiting]}
            )
