"""Compares settings: what a reload changes, told by the settings' names and without secrets."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.config.settings import Settings

NAMES = {
    "environment_key": "FREEGPT_API_KEY",
    "prices": "prices",
    "max_body_bytes": "GATEWAY_MAX_BODY_MB",
    "max_bodies_bytes": "GATEWAY_MAX_BODIES_MB",
    "max_header_bytes": "GATEWAY_MAX_HEADER_KB",
}
"""The names of settings whose fields are named otherwise."""
SECRETS = frozenset({"environment_key", "upstream_api_key"})
NOT_COMPARED = frozenset({"warnings"})
NEEDS_RESTART = frozenset(
    {
        "host",
        "port",
        "workers",
        "tokens_file",
        "data_dir",
        "usage_days",
        "report_seconds",
        "object_days",
        "counters",
        "max_children",
        "changes_per_minute",
        "queue_size",
        "max_header_bytes",
        "drain_delay",
        "drain_seconds",
    }
)
"""Fields of what is made once: sockets, processes, files and queues."""
_LONGEST = 200


class Change(NamedTuple):
    """A setting that has changed."""

    setting: str
    before: str
    after: str
    needs_restart: bool

    def __str__(self) -> str:
        return f"{self.setting}: {self.before} -> {self.after}"


def difference(before: Settings, after: Settings) -> list[Change]:
    """Returns the settings that have changed, with their values as text. Of secrets it only tells that they have changed."""
    return [
        Change(setting_name(name), *_texts(name, old, new), name in NEEDS_RESTART)
        for name in _fields()
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def with_reloadable(before: Settings, after: Settings) -> Settings:
    """Returns the settings after, with those from before that only a restart can change."""
    return dataclasses.replace(after, **{name: getattr(before, name) for name in NEEDS_RESTART})


def setting_name(field: str) -> str:
    """Returns the name of the setting that a field of ``Settings`` has the value of."""
    return NAMES.get(field, f"GATEWAY_{field.upper()}")


def _fields() -> Iterable[str]:
    return (field.name for field in dataclasses.fields(Settings) if field.name not in NOT_COMPARED)


def _texts(name: str, old: Any, new: Any) -> tuple[str, str]:
    if name in SECRETS:
        return ("(secret)" if old else "(none)", "(another secret)" if old and new else "(secret)" if new else "(none)")
    return _text(old), _text(new)


def _text(value: Any) -> str:
    if isinstance(value, frozenset):
        value = sorted(map(str, value))
    elif isinstance(value, tuple):
        value = [str(one) for one in value]
    elif hasattr(value, "items"):
        value = dict(value)
    text = "(none)" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
