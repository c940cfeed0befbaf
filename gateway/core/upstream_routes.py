"""Knows the routes of an upstream: which are inference, which administer its account, and where the ids of objects are. Pure.

All paths are what follows ``/v1/``, encoded as the client sent them. The lists are OpenAI's, Anthropic's, LiteLLM's, vLLM's and
SGLang's.
"""

import re
from collections.abc import Collection
from urllib.parse import unquote

INFERENCE = frozenset(
    {
        "chat/completions", "completions", "embeddings", "responses", "responses/compact", "responses/input_tokens",
        "moderations", "rerank", "score", "classify", "pooling", "tokenize", "detokenize", "messages",
        "messages/count_tokens", "images/generations", "images/edits", "images/variations", "audio/speech",
        "audio/transcriptions", "audio/translations",
    }
)  # fmt: skip
"""What a model answers to a POST, without an object that others could reach. Compared whole: nothing below them is inference."""

_ADMINISTRATIVE = frozenset(
    {
        # OpenAI and Anthropic
        "organization", "organizations", "projects", "workspaces", "dashboard", "billing", "usage", "invites",
        "fine_tuning/checkpoints",
        # LiteLLM
        "access_group", "add", "admin", "audit", "budget", "cache", "config", "credentials", "customer", "delete",
        "email", "end_user", "get", "global", "guardrails", "health", "invitation", "jwt", "key", "mcp", "model",
        "model_access_group", "model_group", "organization_members", "policies", "policy", "project", "prompts",
        "provider", "router", "scim", "settings", "spend", "sso", "tag", "team", "update", "user", "users",
        "vector_store",
        # vLLM and SGLang
        "collective_rpc", "flush_cache", "is_paused", "is_sleeping", "load_lora_adapter", "lora_adapters", "metrics",
        "pause", "reset_encoder_cache", "reset_mm_cache", "reset_prefix_cache", "resume", "scale_elastic_ep",
        "server_info", "sleep", "start_profile", "stop_profile", "unload_lora_adapter", "update_weights", "wake_up",
    }
)  # fmt: skip
"""What administers the upstream or its account. It is for admins alone, and no setting opens it."""

_COLLECTIONS = frozenset(
    {
        "audio/voice_consents", "audio/voices", "chat/completions", "chatkit/sessions", "chatkit/threads",
        "fine_tuning/jobs", "messages/batches", "realtime/calls", "realtime/client_secrets", "realtime/sessions",
        "realtime/transcription_sessions", "threads/runs",
    }
)  # fmt: skip
"""Collections whose names have two segments. The name of every other one is the first segment of the path."""


_UPLOAD = re.compile(r"uploads/[^/]+/(?:parts|complete|cancel)")
_UPLOADS = frozenset(
    {"files", "images/edits", "images/variations", "audio/transcriptions", "audio/translations", "skills", "videos"}
)


def is_inference(method: str, path: str) -> bool:
    """Whether every token with access to inference may use this."""
    return method == "POST" and path in INFERENCE


def takes_uploads(path: str) -> bool:
    """Whether bodies that are no JSON are usual here. They hold no ids of objects."""
    return path in _UPLOADS or (path.startswith("uploads/") and path.endswith("/parts"))


def has_no_model(path: str) -> bool:
    """Whether a POST here names no model, and none answers it."""
    return path in ("files", "uploads") or _UPLOAD.fullmatch(path) is not None


def may_lack_model(path: str) -> bool:
    """Whether a POST here needs no model: there is none, or the upstream has one for it that costs nothing."""
    return path == "moderations" or has_no_model(path)


def is_administrative(path: str) -> bool:
    """Whether this administers the upstream or its account, however the path is spelled."""
    first, _, rest = unquote(path).casefold().lstrip("/").partition("/")
    return first in _ADMINISTRATIVE or f"{first}/{rest.partition('/')[0]}" in _ADMINISTRATIVE


def opening_prefix(path: str, prefixes: Collection[str]) -> str | None:
    """Returns the longest of the prefixes that the path is, or lies below; None where there is none."""
    fitting = [prefix for prefix in prefixes if path == prefix or path.startswith(f"{prefix}/")]
    return max(fitting, key=len, default=None)


def object_segments(path: str, prefix: str = "") -> tuple[str, ...]:
    """Returns the segments behind the name of the collection: the id of an object, and what lies below it.

    ``prefix`` is a name that the operator gave to a collection which is not known here.
    """
    segments = path.split("/")
    size = 2 if "/".join(segments[:2]) in _COLLECTIONS else 1
    return tuple(segments[max(size, len(prefix.split("/")) if prefix else 0) :])


def collection(path: str) -> str:
    """Returns the name of the collection that a path is in."""
    segments = path.split("/")
    return "/".join(segments[: len(segments) - len(object_segments(path))])
