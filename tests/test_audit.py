"""An audit that could look nothing up is told from one that found nothing."""

from typing import Any

import pytest
from audit import verdict

LEFT_OUT = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
HOLE = {"id": "CVE-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": ""}


@pytest.mark.parametrize(
    ("packages", "status", "last"),
    [
        ([LEFT_OUT, SOUND], 0, "known holes: 0"),
        ([SOUND, {**SOUND, "vulns": [HOLE]}], 1, "known holes: 1"),
        ([LEFT_OUT] * 20, 2, "nothing was audited: the index has no data on these packages"),
        ([], 2, "nothing was audited: the index has no data on these packages"),
    ],
)
def test_the_status_says_what_was_found(
    packages: list[dict[str, Any]], status: int, last: str
) -> None:
    said, found = verdict(packages)
    assert (found, said[-1]) == (status, last)


def test_what_is_known_is_said() -> None:
    said, _ = verdict([LEFT_OUT, {**SOUND, "vulns": [HOLE]}])
    assert said[:3] == [
        "audited: 1 of 2 packages",
        "not known to the index: ours",
        "numpy 2.0: CVE-1, mended by 2.1, 3.0",
    ]
