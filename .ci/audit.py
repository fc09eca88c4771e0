"""Asks an advisory database about every locked package. Fails for a known vulnerability, and says what was not asked.

pip-audit ends well, with "no known vulnerabilities", also where a database knows none of the packages, as behind a
mirror of a registry that has no advisories: so its answer is counted, and not its exit code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("requirements.txt")
AUDIT = ("-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json", "-r")


def main() -> int:
    ran = subprocess.run([sys.executable, *AUDIT, str(LOCK)], capture_output=True, text=True, check=False)
    if "No module named pip_audit" in ran.stderr:
        print("audit: pip-audit is not installed; install what .ci/requirements.txt locks")
        return 1
    packages = _packages(ran.stdout)
    asked = [each for each in packages if "vulns" in each]
    if not asked:
        reason = (ran.stderr.strip().splitlines() or ["no answer"])[-1] if not packages else packages[0]["skip_reason"]
        print(f"audit: SKIPPED, nothing was checked: no advisory database can be reached from here ({reason})")
        return 0
    return _told(asked, [each["name"] for each in packages if "vulns" not in each])


def _packages(answer: str) -> list[dict[str, Any]]:
    try:
        packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return []
    return packages


def _told(asked: list[dict[str, Any]], not_asked: list[str]) -> int:
    found = [(each, vulnerability) for each in asked for vulnerability in each["vulns"]]
    for each, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"audit: {each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    if not_asked:
        print(f"audit: not checked, for the database does not know them: {', '.join(not_asked)}")
    print(f"audit: {len(asked)} locked packages checked, {len(found)} known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
