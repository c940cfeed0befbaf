"""The page that shows an OpenAPI description: HTML without a script, so that nothing on it can run. Pure."""

import base64
import hashlib
from typing import Any


def policy(style: str) -> str:
    """The Content-Security-Policy: only our own style, by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def rendered(description: dict[str, Any], style: str) -> bytes:
    """The whole page."""
    return b""
