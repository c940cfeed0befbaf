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
        found = self._find()
        return found is not None and self._use(found, lambda settings: None)

    async def reload_app(self, app: Reloadable) -> None:
        """Loads the settings and makes an application use them. Where it cannot, nothing changes."""
        found = await self._threads.run(self._find)
        if found is None:
            return
        create = await self._threads.run(registry.find, found.backend)
        if self._use(found, lambda settings: app.reload(settings, create)):
            settings = self.settings
            gateway_logging.configure(settings.log_format, settings.log_level, settings.secrets)

    def _find(self) -> Settings | None:
        """Returns the settings as they are written now; None, and logs the problems, where they are wrong. Blocking."""
        try:
            return self._load()
        except ConfigurationError as error:
            _log_problems([str(problem) for problem in error.problems])
            return None

    def _use(self, found: Settings, use: Callable[[Settings], None]) -> bool:
        """Gives what can be changed of the settings to ``use``, and returns whether it took them: ValueError says no."""
        settings = with_reloadable(self.settings, found)
        try:
            use(settings)
        except ValueError as error:
            _log_problems([str(error)])
            return False
        changes, self.settings = difference(self.settings, found), settings
        self._log(changes)
        return True

    def _log(self, changes: list[Change]) -> None:
        made = [str(change) for change in changes if not change.needs_restart]
        waiting = [change for change in changes if change.needs_restart]
        log.warning("the settings are reloaded", extra={"changes": made or "none"})
        if waiting:
            log.warning(
                "these settings change at the next start only", extra={"changes": [str(one) for one in waiting]}
            )


def _log_problems(problems: list[str]) -> None:
    log.error("the settings are not reloaded, those from before stay in force", extra={"problems": problems})
