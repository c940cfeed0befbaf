"""Words that are not to be used, with what to say instead. One word has one meaning, and it is the one of the field."""

import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

PACKAGE_WORDS = "package, module or layer"

WORDS = {
    "house": "project",
    "room": f"{PACKAGE_WORDS}; for capacity: space",
    "rooms": PACKAGE_WORDS,
    "door": "interface or transport",
    "doors": "interfaces",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "mending": "fix",
    "entrance": "pipeline",
    "ticket": "usage tracker; of a help desk: issue",
    "tickets": "usage trackers; of a help desk: issues",
    "patience": "max_wait or timeouts",
    "ratchet": "latch",
    "kinship": "relation",
    "departures": "disconnects",
    "outlook": "dry run",
}
"""Metaphors. They are found in code and in prose, as words and as parts of identifiers."""

PARTS = {
    "gate": "authentication, authorization or middleware",
    "held": "match, reservation or reserved, after what it is",
    "demand": "charge",
    "demands": "charges",
    "levels": "counters",
    "giver": "inherited defaults",
    "wish": "spec",
    "masters": "what the actions need",
    "floor": "minimum, or layer",
    "floors": "minimums, or layers",
}
"""Words that prose may use ("the lock is held", "a coverage gate", "log levels"), but no identifier."""

IDENTIFIERS = {
    "ActiveCalls": "InFlightRequests",
    "AiohttpUpstream": "AiohttpTransport",
    "ANYBODY": "ANONYMOUS",
    "Authority": "Authorizer",
    "BackendRequest": "ProviderRequest",
    "CountersDown": "CounterStoreUnavailable",
    "Desk": "CommandContext",
    "Exposition": "PrometheusCollector",
    "Grant": "Rights",
    "Granted": "Reservation",
    "Line": "LimitChain",
    "LineWriter": "LogWriter",
    "NewToken": "CreatedToken",
    "NumberPage": "WorkerMetrics",
    "NumbersArena": "SharedMetrics",
    "TokenWatcher": "TokenCache",
    "Touch": "RecordChange",
    "UseRecorder": "LastUsedWriter",
    "WholeResponse": "Response",
    "Whose": "the request and its principal",
    "_Line": "connection",
    "grant_of": "rights_of",
    "is_mistyped": "has_bad_checksum",
    "limits_on": "applicable_limits",
    "made_of": "the names of the parts",
    "secrets_room": "secret",
    "take_note": "on_tokens_changed",
    "to_its_end": "await_uncancelled",
}
"""Names that had another one before."""

PHRASES = {
    r"\b(?:that|which) (?:is|are) none\b": "invalid",
    r"\bstands? twice\b": "appears twice",
    r"\blist of texts\b": "list of strings",
    r"\b(?:be|is|not) a text\b(?![-/])": "a string",
    r"""["']a bug["']""": "unhandled exception",
    r"\bborn dead\b": "would have expired already",
    r"\banybody's guess\b": "unknown",
    r"\b(?:along|down|up) (?:the|its|their|this) line\b|\bline of (?:parents|tokens)\b": "chain of parents",
    r"\b(?:held|holds?) against\b": "checked against",
    r"\b(?:HTTP|this|that|each|ground|upper|lower|higher|same|other) floors?\b": "layer, or minimum",
    r"\bfloors? of (?:the|an?)\b|\ba floor\b": "layer, or minimum",
    r"\bstrangers? to\b": "independent of",
}
"""Patterns for text, where a word alone would give false alarms: ``floor`` is also a function of ``math``."""

MODULE_NAMES = {
    "accounting": "reports",
    "active": "in_flight",
    "bodies": "request_body",
    "call": "context",
    "demands": "matching",
    "document": "json_format",
    "entry": "hash_chain",
    "exposition": "prometheus",
    "fields": "validation",
    "forms": "params",
    "globs": "wildcards",
    "grants": "rights",
    "journal": "log",
    "levels": "algorithms",
    "lifetime": "expiry",
    "management": "admin.tokens",
    "masking": "redaction",
    "meter": "extraction",
    "observe": "access_log",
    "public": "serializers",
    "record": "models",
    "recorder": "last_used",
    "references": "lookup",
    "relay": "response",
    "rows": "stores.sqlite",
    "schema": "json_body",
    "shared_numbers": "shared_metrics",
    "table": "routes",
    "throttle": "ip_rate_limit",
    "view": "hierarchy",
    "watcher": "cache",
    "whole": "response",
    "words": "presentation",
}
"""Names of modules that do not tell what is inside."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PHRASES = [(re.compile(pattern), instead) for pattern, instead in PHRASES.items()]


class Finding(NamedTuple):
    """A word that is not to be used: the number of its line, the word, and what to say instead."""

    line: int
    word: str
    instead: str


def find_in_text(text: str) -> Iterator[Finding]:
    """Yields what prose and code must not say."""
    for number, line in enumerate(text.splitlines(), 1):
        for part in _PART.findall(line):
            if (instead := WORDS.get(part.lower())) is not None:
                yield Finding(number, part, instead)
        for pattern, instead in _PHRASES:
            yield from (Finding(number, match[0], instead) for match in pattern.finditer(line))


def find_in_code(source: str) -> Iterator[Finding]:
    """Yields what a Python file must not say, in its text and in its identifiers. Raises SyntaxError."""
    yield from find_in_text(source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for token, following in itertools.pairwise(tokens):
        is_rounding = token.string == "floor" and (following.string == "(" or "import" in token.line)
        if token.type == tokenize.NAME and not is_rounding:
            yield from (Finding(token.start[0], token.string, instead) for instead in _instead_of(token.string))


def _instead_of(name: str) -> Iterator[str]:
    """Yields what to call an identifier instead. Names of tests are sentences, so they may use the words of prose."""
    if name in IDENTIFIERS:
        yield IDENTIFIERS[name]
    if not name.lower().startswith(("test_", "log_", "_log_")):
        yield from (PARTS[part] for part in map(str.lower, _PART.findall(name)) if part in PARTS)
