"""What mutmut prints is read, and known survivors are told from new ones."""

from pathlib import Path

import pytest

from scripts import mutate
from scripts.mutate import Mutant

RESULTS = """
    gateway.limits.limiter.xǁLimiterǁreserve__mutmut_3: survived
    gateway.limits.limiter.x__key__mutmut_1: timeout
    gateway.limits.config.x_read__mutmut_12: no tests
    gateway.audit.log.x_read__mutmut_1: survived
"""
DIFF = """# gateway.limits.limiter.xǁLimiterǁreserve__mutmut_3: survived
--- gateway/limits/limiter.py
+++ gateway/limits/limiter.py
@@ -1,4 +1,4 @@
 async def reserve(self):
-    if self.free <= 0:
+    if self.free < 0:
         raise ReservationRefused
"""
RESERVE = Mutant("gateway.limits.limiter.xǁLimiterǁreserve", "if self.free <= 0:", "if self.free < 0:")


def test_survivors() -> None:
    assert list(mutate.survivors(RESULTS)) == [
        "gateway.limits.limiter.xǁLimiterǁreserve__mutmut_3",
        "gateway.limits.config.x_read__mutmut_12",
        "gateway.audit.log.x_read__mutmut_1",
    ]


def test_a_diff() -> None:
    assert mutate.parse_diff("gateway.limits.limiter.xǁLimiterǁreserve__mutmut_3", DIFF) == RESERVE


@pytest.mark.parametrize(
    ("path", "expected"),
    [("gateway/limits", "gateway.limits.*"), ("gateway/limits/limiter.py", "gateway.limits.limiter.*")],
)
def test_patterns(path: str, expected: str) -> None:
    assert mutate.pattern(path) == expected


def test_every_explained_survivor_has_a_reason() -> None:
    assert all(mutate.read_explained(mutate.EXPLAINED).values())


def test_only_unexplained_survivors_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "equivalent.toml"
    monkeypatch.setattr(mutate, "EXPLAINED", listed)
    monkeypatch.setattr(mutate, "run", lambda paths: [RESERVE])
    listed.write_text("")
    assert mutate.main([]) == 1
    assert "if self.free < 0:" in capsys.readouterr().out
    listed.write_text(
        f"[[mutant]]\nfunction = '{RESERVE.function}'\nbefore = '{RESERVE.before}'\nafter = '{RESERVE.after}'\n"
        "reason = 'free is never 0'\n"
    )
    assert mutate.main([]) == 0
