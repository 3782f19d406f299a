"""`make audit`: known holes in what is installed, by pip-audit, and how much it could look up.

pip-audit ends well also where its index knows nothing of any package. Here that is a failure.
"""

import json
import subprocess
import sys
from typing import Any

MOST_NAMED = 10
"""Packages that are named where they could not be looked up."""


def verdict(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What to say of pip-audit's `dependencies`, and a status: 1 for holes, 2 for none audited."""
    left_out = [package["name"] for package in packages if "skip_reason" in package]
    audited = [package for package in packages if "skip_reason" not in package]
    said = [f"audited: {len(audited)} of {len(packages)} packages"]
    if left_out:
        more = ", …" if len(left_out) > MOST_NAMED else ""
        said.append(f"not known to the index: {', '.join(left_out[:MOST_NAMED])}{more}")
    if not audited:
        return [*said, "nothing was audited: the index has no data on these packages"], 2
    holes = [(package, hole) for package in audited for hole in package["vulns"]]
    for package, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        said.append(f"{package['name']} {package['version']}: {hole['id']}, mended by {mended}")
    said.append(f"known holes: {len(holes)}")
    return said, int(bool(holes))


def main() -> int:
    """Audit the environment of this Python."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):  # it could not even ask
        print(done.stderr, file=sys.stderr)
        print("nothing was audited: pip-audit failed", file=sys.stderr)
        return 2
    said, status = verdict(packages)
    print("\n".join(said))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
