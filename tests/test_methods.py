"""The list of all that can be chosen by name."""

import json
import subprocess
import sys
from typing import Any

import pytest

from taskdisc.discovery.proposers import PROPOSERS
from taskdisc.discovery.scorers import SCORERS
from taskdisc.images import SOURCES
from taskdisc.methods import as_values, methods
from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.backbones import BACKBONES
from taskdisc.mtl.kinds import KINDS
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.studies import STUDIES

TABLES: dict[str, Any] = {
    "weightings": WEIGHTINGS,
    "architectures": ARCHITECTURES,
    "backbones": {**BACKBONES, "torchvision:NAME": None},
    "schedules": SCHEDULES,
    "task_kinds": KINDS,
    "proposers": {**PROPOSERS, "nevergrad": None},
    "scorers": SCORERS,
    "studies": {name: row for name, row in STUDIES.items() if not row.command},
    "image_sets": SOURCES,
}


def test_every_table_is_listed_in_its_order() -> None:
    names = {kind: [row.name for row in rows] for kind, rows in methods().items()}
    assert names.items() >= {kind: list(table) for kind, table in TABLES.items()}.items()


@pytest.mark.parametrize("kind", TABLES)
def test_items_are_complete(kind: str) -> None:
    for row in methods()[kind]:
        for text in (row.summary, row.needs):
            assert "\n" not in text and text.strip() == text
            assert not text.endswith(".")
        assert row.summary
        if row.paper is not None:
            assert row.paper.url.startswith("https://") and row.paper.title and row.paper.authors
            assert 1950 < row.paper.year < 2100


@pytest.mark.parametrize(
    ("kind", "name", "needs"),
    [
        ("weightings", "equal", "losses"),
        ("weightings", "krum", "inner products of the tasks' gradients, at least 3 tasks"),
        ("weightings", "cosine-weighted", "inner products of the tasks' gradients, a main task"),
        ("architectures", "hard-sharing", ""),
        ("backbones", "lenet", ""),
        ("proposers", "swap", "the closed form"),
        ("proposers", "nevergrad", ""),
        ("scorers", "trained", ""),
        ("studies", "baseline", "an image set"),
        ("studies", "toy-valley", ""),
        ("image_sets", "digits", ""),
        ("image_sets", "folder", "your files (--root)"),
    ],
)
def test_what_they_need(kind: str, name: str, needs: str) -> None:
    assert {row.name: row.needs for row in methods()[kind]}[name] == needs


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "taskdisc", "methods", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_command_prints_json() -> None:
    printed = json.loads(run("--json"))
    assert printed == as_values(methods())
    mgda = next(row for row in printed["weightings"] if row["name"] == "mgda")
    assert list(mgda) == ["name", "summary", "paper", "needs", "settings"]
    assert mgda["settings"]["max_iters"] == {
        "default": 100,
        "rule": "a whole number of at least 1",
    }
    assert list(mgda["paper"]) == ["authors", "year", "title", "url"]
    assert printed["scorers"][-1]["paper"] is None


def test_the_command_prints_a_table_for_each_kind() -> None:
    lines = run().splitlines()
    assert [line for line in lines if line.replace(" ", "_") in TABLES] == [
        kind.replace("_", " ") for kind in TABLES
    ]
    (line,) = (line for line in lines if line.split()[:1] == ["famo"])
    assert "all losses fall at one rate" in line and "Liu et al. 2023" in line


def test_the_command_tells_of_one_method() -> None:
    told = run("cross-stitch")
    assert "Misra et al." in told and "self_weight" in told and "0.9" in told
    assert "random (weightings)" in run("random") and "random (proposers)" in run("random")


def test_listing_imports_no_torch() -> None:
    code = "import taskdisc.methods as m, sys; m.methods(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
