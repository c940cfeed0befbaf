"""What both Python clients share: which checks to run, and one printed line for each."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence

Check = Callable[[], None]

PROMPT = "Say hello to the acceptance run."
WRONG_KEY = "sk-acceptance-wrong-key"
TIMEOUT_SECONDS = 60
FINISHED = ("stop", "length")


def run_checks(checks: Sequence[tuple[str, Check]]) -> int:
    """Run every check not named in SKIP, also after a failure; the exit code."""
    skipped = set(filter(None, os.environ.get("SKIP", "").split(",")))
    failures = 0
    for name, check in checks:
        if name in skipped:
            print(f"skip {name}", flush=True)
            continue
        try:
            check()
        except Exception as error:
            traceback.print_exc()
            print(f"FAIL {name}: {type(error).__name__}", flush=True)
            failures += 1
        else:
            print(f"ok {name}", flush=True)
    return 1 if failures else 0


def expect_text(text: object) -> None:
    assert isinstance(text, str) and text.strip(), f"expected some text, got {text!r}"


def expect_stream(parts: Sequence[str | None], finish_reason: object) -> None:
    """More than one piece of text, and an end that was said rather than only reached."""
    pieces = [part for part in parts if part]
    assert len(pieces) > 1, f"expected several pieces, got {pieces!r}"
    expect_text("".join(pieces))
    assert finish_reason in FINISHED, f"the stream ended with finish_reason {finish_reason!r}"


def expect_vector(vector: object) -> None:
    assert isinstance(vector, list) and vector, f"expected a vector, got {vector!r}"
    assert all(isinstance(number, float) for number in vector), "expected numbers only"


def expect_error_code(code: object) -> None:
    """The gateway promises a code; upstreams differ, so EXPECT_ERROR_CODE is set only where it holds."""
    wanted = os.environ.get("EXPECT_ERROR_CODE")
    assert not wanted or code == wanted, f"expected error code {wanted!r}, got {code!r}"
