"""The API does what its description says: every operation, by thousands of good and bad requests that schemathesis makes up.

Full length: GATEWAY_TEST_CAMPAIGN=full, 500 examples for each operation.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import KEY, ROOT, gateway_process

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
EXAMPLES = 500 if FULL else 10
METHODS = ("get", "post", "patch", "delete")

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3000)]


def run(url: str, folder: Path) -> dict[str, Any]:
    """The report of one run of schemathesis over all its phases and checks."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
        "run", f"{url}/openapi.json",
        "--phases", "examples,coverage,fuzzing,stateful",
        "--max-examples", str(EXAMPLES), "--continue-on-failure", "--seed", "1", "--no-color",
        "-H", f"Authorization: Bearer {KEY}", "--report", "json", "--report-dir", str(folder / "report"),
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.campaigns.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    with (folder / "schemathesis.log").open("wb") as log:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **hooks}, stdout=log, stderr=log, check=False, timeout=2900
        )
    reports = list((folder / "report").glob("*.json"))
    assert reports, (folder / "schemathesis.log").read_text()[-3000:]
    found: dict[str, Any] = json.loads(reports[0].read_text())
    return found


def test_the_api_keeps_to_its_description(tmp_path: Path) -> None:
    described = json.loads((ROOT / "gateway/http/openapi/openapi.json").read_text())
    operations = [(method, path) for path, item in described["paths"].items() for method in item if method in METHODS]
    # The description itself is fetched to begin with, and is not counted.
    count = len(operations) - 1
    with gateway_process(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_TRUSTED_PROXIES="127.0.0.1/32") as gateway:
        report = run(gateway.url, tmp_path)
        log = gateway.log.read_text()
    cases = report["test_cases"]
    print(f"\n{count} operations, {EXAMPLES} examples each at the most, {cases['generated']} requests in "
          f"{report['running_time']:.0f} s; failures: {report['failures']}; errors: {report['errors']}")  # fmt: skip
    assert (report["operations"]["tested"], report["complete"]) == (count, True)
    assert (report["failures"], report["errors"]) == ([], [])
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    # A request without a body or a parameter is soon asked in every way there is.
    varied = [
        1 for item in described["paths"].values() for method in item if method in METHODS and _varies(item, method)
    ]
    assert cases["generated"] >= len(varied) * EXAMPLES
    assert '"unhandled exception"' not in log
    assert '"status":500' not in log


def _varies(item: dict[str, Any], method: str) -> bool:
    return bool(item.get("parameters") or item[method].get("parameters") or item[method].get("requestBody"))
