"""Corrects what platforms and slips of the hand put into settings. Pure. Each correction leaves a warning with the fix.

Only what has one meaning is corrected. Everything else is a problem, and the gateway does not start.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit


class Warned(NamedTuple):
    """Describes something that was corrected or ignored, and how to put it right."""

    setting: str
    remark: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.remark}"


_ADDRESS = r"(?:tcp|udp|sctp)://\S+"
_SERVICE_LINKS = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (r".*_SERVICE_HOST", r"[0-9a-f.:]+"),
        (r".*_SERVICE_PORT(_[A-Z0-9_]+)?", r"[0-9]+"),
        (r".*_PORT", _ADDRESS),
        (r".*_PORT_[0-9]+_(TCP|UDP|SCTP)", _ADDRESS),
        (r".*_PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)", r"[0-9a-zA-Z.:]+"),
    )
)
"""What Kubernetes injects for each service, and Docker for each linked container: forms of the names and of the values. The names
alone would not do, because ``GATEWAY_PORT`` is a setting, too."""
_OURS = ("GATEWAY_", "FREEGPT_", "OPENAI_")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_ENDPOINT = re.compile(
    r"/+(chat/completions|completions|responses|embeddings|models|messages|moderations|images/generations"
    r"|audio/(?:speech|transcriptions))/*$"
)


def without_service_links(environ: Mapping[str, str], warnings: list[Warned]) -> dict[str, str]:
    """Returns the environment without the variables that Kubernetes injects for a service that is called like this program."""
    found = [name for name in environ if name.startswith(_OURS) and _is_service_link(name, environ[name])]
    if found:
        remark = "ignored: Kubernetes injects it for a service (enableServiceLinks: false in the pod ends that)"
        warnings.append(Warned(", ".join(sorted(found)), remark))
    return {name: value for name, value in environ.items() if name not in found}


def _is_service_link(name: str, value: str) -> bool:
    return any(names.fullmatch(name) and values.fullmatch(value.strip()) for names, values in _SERVICE_LINKS)


def without_quotes(
    sources: Mapping[str, str], names: Collection[str], warnings: list[Warned]
) -> Iterator[tuple[str, str]]:
    """Yields the variables, those among ``names`` without quotation marks around them.

    ``docker run --env-file`` and lists in a compose file keep quotation marks as a part of the value.
    """
    for name, text in sources.items():
        value = text.strip()
        if name in names and len(value) > 1 and _QUOTES.get(value[0]) == value[-1]:
            warnings.append(Warned(name, "the quotes around the value were removed; write it without quotes"))
            value = value[1:-1].strip()
        yield name, value


def upstream_url(setting: str, text: str, warnings: list[Warned]) -> str:
    """Returns the address of an upstream without the path of an endpoint at its end."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return text  # its parser says what is wrong
    if not parts.netloc or "@" in parts.netloc or "?" in text or "#" in text:
        return text
    if (path := _ENDPOINT.sub("", parts.path)) != parts.path:
        text = urlunsplit(parts._replace(path=path))
        remark = f"the path of an endpoint at its end was removed; set it to the address before that: {text}"
        warnings.append(Warned(setting, remark))
    if not path.strip("/"):
        with_version = urlunsplit(parts._replace(path="/v1"))
        remark = f"has no path. If the upstream answers 404, set it to {with_version}: most expect `/v1` at the end"
        warnings.append(Warned(setting, remark))
    return text
