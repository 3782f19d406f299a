"""What `taskdisc runs` says of a folder, by who made it."""

from pathlib import Path
from typing import Any

import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.folder import make_folder
from taskdisc.journal import Journal
from taskdisc.listing import list_runs
from taskdisc.pool import Pool
from taskdisc.studies.multi_task import ComparisonSettings, cells

ROWS: dict[str, Any] = {"equal": {}, "pcgrad": {"weighting": "pcgrad"}}


def comparison(folder: Path, n_done: int, **changes: Any) -> ComparisonSettings:
    """A folder of a comparison, some of whose cells are measured."""
    settings = settings_from(ComparisonSettings, {"rows": ROWS, "seeds": 2, "seed": 5, **changes})
    make_folder(folder, "mtl", "mtl", settings, None, Pool(1, "cpu")).close()
    measured = cells(settings)[:n_done]
    Journal(folder / "cells.jsonl").append([{"cell": c, "record": {}} for c in measured])
    return settings


def test_a_comparison_shows_its_rows_and_how_far_it_is(tmp_path: Path) -> None:
    n_cells = len(cells(comparison(tmp_path / "a", 3)))
    comparison(tmp_path / "b", n_cells)
    comparison(tmp_path / "c", n_cells)
    (tmp_path / "c" / "table.csv").write_text("row\n")
    rows = list_runs(tmp_path)
    assert n_cells == 2 * (2 + 3)  # rows, and each of three tasks alone
    assert [(row["run"], row["done"], row["state"]) for row in rows] == [
        ("a", "3/10", "unfinished"),
        ("b", "10/10", "unfinished"),  # all is measured, and the table not yet written
        ("c", "10/10", "finished"),
    ]
    for row in rows:
        assert (row["made_by"], row["source"], row["seed"]) == ("mtl", "digits", 5)
        assert row["compares"] == "2 rows × 2 seeds: equal, pcgrad"
        assert (row["ratio"], row["tasks"], row["confirmed"]) == ("–", "–", "–")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["only"], "1 row × 1 seed: only"),
        (["a", "b", "c", "d"], "4 rows × 1 seed: a, b, c, d"),
        ([f"row {i}" for i in range(9)], "9 rows × 1 seed: row 0, row 1, row 2, row 3, …"),
    ],
)
def test_of_many_rows_the_first_are_named(tmp_path: Path, names: list[str], shown: str) -> None:
    comparison(tmp_path / "a", 0, rows={name: {} for name in names}, seeds=1)
    (row,) = list_runs(tmp_path)
    assert row["compares"] == shown


def test_every_run_says_when_it_was_started(tmp_path: Path) -> None:
    comparison(tmp_path / "a", 0)
    made = make_folder(tmp_path / "b", "search", "search", SearchSettings(), None, Pool(1, "cpu"))
    made.close()
    (tmp_path / "a" / "environment.json").write_text(
        '{"made_by": "mtl", "started": "2026-05-01T17:30:59+00:00"}'
    )
    (tmp_path / "b" / "environment.json").write_text('{"made_by": "search"}')
    ours, search = list_runs(tmp_path)
    assert ours["started"] == "2026-05-01 17:30"
    assert "intact environment.json" in search["state"]


def test_a_damaged_comparison_does_not_hide_the_others(tmp_path: Path) -> None:
    comparison(tmp_path / "a", 1)
    comparison(tmp_path / "b", 1)
    (tmp_path / "a" / "config.yaml").write_text("rows: 3")
    damaged, whole = list_runs(tmp_path)
    assert damaged["state"].startswith("damaged: ") and damaged["compares"] == "–"
    assert whole["state"] == "unfinished"


def test_a_run_itself_is_listed_alone(tmp_path: Path) -> None:
    comparison(tmp_path / "a", 3)
    comparison(tmp_path / "b", 0)
    (row,) = list_runs(tmp_path / "a")
    assert (row["run"], row["done"]) == ("a", "3/10")
