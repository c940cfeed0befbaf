"""Replaces what differs from run to run: random names, secrets, times, durations. Everything else stays as it is.

A name that appears again is replaced by the same word again, so that a transcript still shows which token is meant.
"""

import getpass
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_SECRET = re.compile(r"(?:sk-|sk_live_|sk_test_)[0-9A-Za-z]{49}(?![0-9A-Za-z])")
_TOKEN_ID = re.compile(r"tok_(?!Fixture)[0-9A-Za-z]{20}(?![0-9A-Za-z])")
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?)?")
_DISPLAY_LENGTH = 14
_RECENT, _SOON = timedelta(days=9), timedelta(days=40)

_PATTERNS = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"req_[0-9a-f]{32}", "<request id>"),
        (r"^([Dd]ate: )[A-Z][a-z]{2}, .*?(\r?)$", r"\1<date>\2"),
        (r"^(openai-processing-ms: )\d+", r"\1<ms>"),
        (r"^(server-timing: ).*?(\r?)$", r"\1<durations>\2"),
        (r"^(x-ratelimit-reset-[a-z-]+: ).*?(\r?)$", r"\1<duration>\2"),
        (r'("(?:upstream_)?ms":)[0-9.]+', r"\1<ms>"),
        (r"(try again in )[0-9.hms]+( s)?", r"\1<duration>\2"),
        (r'("retry_after_ms":)\d+', r"\1<ms>"),
        (r'("pid":)\d+', r"\1<pid>"),
        (r"^\d\d:\d\d:\d\d ", "<time> "),
        (r"^(<time> .* \d{3}) [0-9.]+ ms ", r"\1 <ms> "),
        (r'("path":"/(?:api/[^"]*|metrics)".*?"bytes":)\d+', r"\1<bytes>"),
        (r'("status":429,"bytes":)\d+', r"\1<bytes>"),
    )
)
_WAITS = (
    (re.compile(r"^(Retry-After: )\d+", re.MULTILINE), r"\1<seconds>"),
    (re.compile(r"^(retry-after-ms: )\d+", re.MULTILINE), r"\1<ms>"),
)
_REFUSED = re.compile(r"HTTP/1\.[01] 429 ")
_USES = (
    (re.compile(r'("(?:usage_count|usageCount)":)\d+'), r"\1<uses>"),
    (re.compile(r'("(?:last_used|lastUsed)":)(?:null|"[^"]*")'), r"\1<time or null>"),
    (re.compile(r'("last_used_from":)(?:null|"[^"]*")'), r"\1<address or null>"),
)
_SERIES = re.compile(r"^([a-z_]+(?:\{.*\})?) [0-9.e+-]+$", re.MULTILINE)


class Normaliser:
    """One section's replacements. ``literals`` are texts with their replacements: folders, ports, the version."""

    def __init__(self, literals: Mapping[str, str], keeps_waits: bool = False) -> None:
        """``keeps_waits``: times to wait stay, because the upstream of the transcript has set them."""
        self._literals = dict(sorted(literals.items(), key=lambda item: -len(item[0])))
        self._waits = () if keeps_waits else _WAITS
        self._named: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._user = getpass.getuser()
        now = datetime.now(UTC)
        self._times = (now - _RECENT, now + _SOON)

    def add_literal(self, text: str, replacement: str) -> None:
        self._literals[text] = replacement

    def text(self, text: str) -> str:
        """What a command or a log says."""
        for literal, replacement in self._literals.items():
            text = text.replace(literal, replacement)
        for secret in _SECRET.findall(text):
            self._add_secret(secret)
        for found, name in self._named.items():
            text = text.replace(found, name)
        text = _TOKEN_ID.sub(lambda match: self._name(match[0], "token"), text)
        text = _HASH.sub(lambda match: self._name(match[0], "hash"), text)
        text = _TIME.sub(self._time, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        text = text.replace(f"command line {self._user}", "command line <user>")
        return text.replace(f'"kind":"command line","name":"{self._user}"', '"kind":"command line","name":"<user>"')

    def reply(self, text: str) -> str:
        """An HTTP answer: how often a token was used reaches its record with a delay, so that is left out, too."""
        text = self.text(text)
        waits = self._waits if _REFUSED.match(text) else ()
        for pattern, replacement in (*_USES, *waits):
            text = pattern.sub(replacement, text)
        return _SERIES.sub(r"\1 <n>", text) if is_metrics_page(text) else text

    def _add_secret(self, secret: str) -> None:
        if secret in self._named:
            return
        number = self._number("secret")
        self._named[secret] = f"<secret {number}>"
        self._named[f"{secret[:7]}***{secret[-4:]}"] = f"<masked secret {number}>"
        self._named[hashlib.sha256(secret.encode()).hexdigest()] = f"<hash of secret {number}>"
        self._named[secret[:_DISPLAY_LENGTH]] = f"<prefix {number}>"

    def _name(self, found: str, kind: str) -> str:
        return self._named.setdefault(found, "") or self._new_name(found, kind)

    def _new_name(self, found: str, kind: str) -> str:
        self._named[found] = f"<{kind} {self._number(kind)}>"
        return self._named[found]

    def _number(self, kind: str) -> int:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return self._counts[kind]

    def _time(self, match: re.Match[str]) -> str:
        """Times of this run; those of the fixtures lie years before or after it and stay."""
        try:
            at = datetime.fromisoformat(match[0])
        except ValueError:
            return match[0]
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return ("<time>" if len(match[0]) > 10 else "<day>") if self._times[0] < at < self._times[1] else match[0]


def is_metrics_page(answer: str) -> bool:
    """Whether an answer is Prometheus' text, whose numbers differ from run to run, and so its length."""
    return "\ncontent-type: text/plain; version=" in answer.lower()
