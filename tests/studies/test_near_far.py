"""Near and far pairs with background: settings, cells, the answer on made records, a small run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.images import source_of
from taskdisc.studies.multi_task import work_of
from taskdisc.studies.multi_task_rows import SINGLE
from taskdisc.studies.near_far import (
    EACH_OTHER,
    ROWS,
    SECOND,
    NearFarSettings,
    answer,
    cells,
    check,
    comparisons_of,
)
from taskdisc.studies.near_far_answer import FIRST, Place, Results
from taskdisc.studies.run import new_study, open_study, run_study, write_study
from taskdisc.studies.study import Answer, Record

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "mtl"

SMALL: dict[str, Any] = {
    "images": {"n_images": 200},
    "pairs": {"near": {"3 / 5": [3, 5]}, "far": {"0 / 1": [0, 1]}},
    "common": {"training": {"epochs": 2}},
    "rows": {"cosine-weighted": {"weighting": "cosine-weighted"}, "between": {"tasks": [FIRST]}},
    "seeds": 2,
}


def settings_of(**values: Any) -> NearFarSettings:
    """Settings from nested values."""
    return settings_from(NearFarSettings, values)


def test_the_default_is_the_file_of_it() -> None:
    assert read_settings(NearFarSettings, CONFIGS / "near-far-digits.yaml") == settings_of()


def test_the_pairs_of_photographs_are_classes_of_theirs() -> None:
    archive = ROOT / ".." / "shared" / "data" / "tiny-imagenet-subset.zip"
    if not archive.exists():
        pytest.skip("Tiny ImageNet is not here")
    settings = read_settings(NearFarSettings, CONFIGS / "near-far.yaml")
    images = settings.images.model_copy(update={"root": str(archive.resolve())})
    source = source_of(images)
    labels, names = source.targets[settings.target], source.classes[settings.target]
    assert {group: len(pairs) for group, pairs in settings.pairs.items()} == {"near": 3, "far": 3}
    for pairs in settings.pairs.values():
        for pair in pairs.values():
            assert [(labels == names.index(one)).sum() for one in pair] == [500, 500]


def test_one_row_or_pair_of_the_default_can_be_changed() -> None:
    changes = ["rows.tanimoto.weighting=pcd", "pairs.near.3 / 5=[3, 8]"]
    settings = read_settings(NearFarSettings, changes=changes)
    assert list(settings.rows) == list(ROWS)
    assert settings.rows["tanimoto"].weighting.name == "pcd"
    assert settings.pairs["near"] == {"3 / 5": ("3", "8"), "4 / 9": ("4", "9")}
    assert settings_of().pairs["near"]["3 / 5"] == ("3", "5")


def test_a_cell_is_one_training_of_the_first_class_and_what_it_is_beside() -> None:
    settings = settings_of(**SMALL)
    found = cells(settings)
    assert len(found) == 2 * 2 * 3
    assert found[:4] == [
        {"pair": "3 / 5", "row": "cosine-weighted", "seed": 0},
        {"pair": "3 / 5", "row": "between", "seed": 0},
        {"pair": "3 / 5", "row": SINGLE, "seed": 0},
        {"pair": "0 / 1", "row": "cosine-weighted", "seed": 0},
    ]


def test_tasks_are_each_class_against_all_and_the_two_on_their_own_images() -> None:
    settings = settings_of(**{**SMALL, "rows": {"all": {"tasks": [FIRST, SECOND, EACH_OTHER]}}})
    work = work_of(comparisons_of(settings)["3 / 5"], {"row": "all", "seed": 0})
    digit = work.images.targets["digit"]
    first, second, between = (task.labels[:, 0] for task in work.tasks)
    assert work.main == 0 and len(digit) == 200
    np.testing.assert_array_equal(first, digit == 3)
    np.testing.assert_array_equal(second, digit == 5)
    np.testing.assert_array_equal(~np.isnan(between), (digit == 3) | (digit == 5))
    np.testing.assert_array_equal(between[digit == 3], 1)
    np.testing.assert_array_equal(between[digit == 5], 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": {}}, "`pairs` must have at least 1 entry, got 0"),
        ({"pairs": {"near": {}}}, "`pairs.near` must have at least 1 pair, got 0"),
        ({"pairs": {"near": {"x": [3]}}}, "`pairs.near.x"),
        (
            {"pairs": {"near": {"x": [3, 3]}}},
            "`pairs.near.x` must be two different classes, got '3",
        ),
        (
            {"pairs": {"near": {"x": [3, 5]}, "far": {"x": [0, 1]}}},
            "`pairs` must name every pair once, got 'x' in 'near' and 'far'",
        ),
        ({"pairs": {"near": {"x": [3, "five"]}}}, "`pairs.near.x` must be classes of 'digit', got"),
        ({"target": "digits"}, "`target` must be a target of 'digits', got 'digits'; did you mean"),
        ({"rows": {}}, "`rows` must have at least 1 entry"),
        ({"rows": {SINGLE: {}}}, "`rows` must have names that do not begin with 'single-task'"),
        ({"rows": {"a": {"tasks": [SECOND]}}}, "`rows.a.tasks` must have the main task 'first'"),
        ({"rows": {"a": {"tasks": [FIRST, "third"]}}}, "`rows.a.tasks` must be names of tasks"),
        ({"rows": {"a": {"weighting": "cosine"}}}, "in row 'a', the weighting must be a known one"),
        ({"test": 1}, "`test` must be less than 1"),
        ({"seeds": 0}, "`seeds` must be"),
        (
            {"images": {"n_images": 20}, "seeds": 8},
            "task '.*' must have at least two classes among its training images",
        ),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        check(settings_of(**{**SMALL, **values}))
    assert "\n" not in str(caught.value)


def record(pair: str, row: str, seed: int, value: float | None, tasks: int = 2) -> Record:
    """A record of two epochs with this average precision."""
    names = [FIRST, SECOND][:tasks]
    found = {"average-precision": value, "balanced-accuracy": 0.5, "loss": 1.0}
    epoch = {
        "active": list(range(tasks)),
        "losses": [1.0] * tasks,
        "weights": [1.0] * tasks,
        "cosines": [[1.0, 0.25][:tasks], [0.25, 1.0][:tasks]][:tasks],
        "conflicts": 0.0 if tasks > 1 else None,
        "validation": [found] * tasks,
        "score": value,
    }
    return {
        "pair": pair,
        "row": row,
        "seed": seed,
        "test": dict.fromkeys(names, found),
        "blind": {name: {**found, "average-precision": 0.1} for name in names},
        "metrics": dict.fromkeys(names, "average-precision"),
        "epoch": 2,
        "epochs": [{"epoch": 1, **epoch}, {"epoch": 2, **epoch}],
        "shown": [],
        "parameters": 10,
        "seconds": 1.0,
        "step_seconds": 0.01,
    }


THREE: dict[str, Any] = {
    "pairs": {"near": {"a": [3, 5], "b": [4, 9]}, "far": {"c": [0, 1]}},
    "rows": {"cosine-weighted": {"weighting": "cosine-weighted"}, "multi-task": {}},
    "seeds": 3,
}


def answer_for(**gains: tuple[float, float, float]) -> Answer:
    """The answer where cosine weighting gains so much, by pair; equal weights lose a tenth."""
    found = []
    for pair, of_pair in gains.items():
        for seed, gain in enumerate(of_pair):
            alone = 0.5 + 0.05 * seed
            found += [
                record(pair, "cosine-weighted", seed, alone + gain),
                record(pair, "multi-task", seed, alone - 0.1 - 0.001 * seed),
                record(pair, SINGLE, seed, alone, tasks=1),
            ]
    return answer(settings_of(**THREE), found)


def line_of(found: Answer, pair: str, row: str) -> dict[str, Any]:
    return next(line for line in found.table if (line["pair"], line["row"]) == (pair, row))


def test_gains_are_paired_by_seed_and_means_of_groups_too() -> None:
    found = answer_for(a=(0.1, 0.2, 0.3), b=(0.0, -0.1, -0.2), c=(0.01, 0.02, 0.03))
    names = ["blind", SINGLE, "cosine-weighted", "multi-task"]
    pairs = [
        ("near", "a"),
        ("near", "b"),
        ("near", "mean of 2"),
        ("far", "c"),
        ("far", "mean of 1"),
    ]
    lines = [(line["group"], line["pair"], line["row"]) for line in found.table]
    assert lines == [(*pair, name) for pair in pairs for name in names]
    gain = "gain in average-precision"
    assert line_of(found, "a", "cosine-weighted")[gain] == pytest.approx(0.2)
    whole = line_of(found, "mean of 2", "cosine-weighted")
    # 0.05 in every seed: the pairs move against each other, their mean does not.
    assert [whole[gain], whole[f"{gain}: from"], whole[f"{gain}: to"]] == pytest.approx([0.05] * 3)
    # Student's t with two degrees of freedom: 4.3027 · 0.1 / √3.
    low = line_of(found, "a", "cosine-weighted")[f"{gain}: from"]
    assert low == pytest.approx(0.2 - 4.302653 * 0.1 / 3**0.5)
    assert line_of(found, "a", SINGLE)["average-precision"] == pytest.approx(0.55)
    assert line_of(found, "a", SINGLE)["average-precision: s.e."] == pytest.approx(0.05 / 3**0.5)
    assert line_of(found, "a", "blind")["average-precision"] == pytest.approx(0.1)
    assert (
        line_of(found, "a", SINGLE)[gain] is None and line_of(found, "a", SINGLE)["cosine"] is None
    )
    assert line_of(found, "mean of 2", "multi-task")["cosine"] == pytest.approx(0.25)


def test_the_reading_says_what_the_intervals_say_of_each_claim() -> None:
    helped = answer_for(a=(0.2, 0.21, 0.22), b=(0.1, 0.11, 0.12), c=(0.0, 0.01, 0.02)).reading
    assert "worst in c +0.010 (-0.015 to +0.035); these seeds show no pair that it hurts" in helped
    assert "though a loss of 0.015 is not excluded" in helped
    assert "near pairs: more by 'cosine-weighted' +0.160" in helped
    assert "and less by 'multi-task' -0.101" in helped
    assert "near less far: more by 'cosine-weighted' +0.150 (+0.150 to +0.150)" in helped
    hurt = answer_for(a=(0.2, 0.2, 0.2), b=(-0.1, -0.11, -0.12), c=(-0.2, -0.21, -0.22)).reading
    assert "worst in c -0.210" in hurt and "; it hurts b, c." in hurt
    safe = answer_for(a=(0.2, 0.21, 0.2), b=(0.1, 0.1, 0.1), c=(0.1, 0.1, 0.1)).reading
    assert "; it hurts no pair." in safe


def test_a_metric_without_a_value_is_left_out_of_its_seed() -> None:
    settings = settings_of(**{**THREE, "pairs": {"near": {"a": [3, 5]}}})
    found = [
        record("a", row, seed, None if (row, seed) == ("multi-task", 1) else 0.1 * seed)
        for seed in range(3)
        for row in ("cosine-weighted", "multi-task", SINGLE)
    ]
    comparison = comparisons_of(settings)["a"]
    results = Results(settings, comparison, found)
    gains = results.gains(Place("near", "a", ("a",)), "multi-task", "average-precision")
    np.testing.assert_array_equal(gains, [0, np.nan, 0])
    reading = answer(settings, found).reading
    assert "nan" not in reading and "less far" not in reading


def test_a_study_goes_on_after_it_was_stopped(tmp_path: Path) -> None:
    settings = settings_of(**{**SMALL, "seeds": 1})
    straight, torn = tmp_path / "straight", tmp_path / "torn"
    folder = new_study("near-far", settings, straight, Pool(1, "cpu"), Progress())
    whole = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()
    assert {"epochs", "gains", "epochs-balanced", "gains-balanced", "cosines"} == set(whole.plots)
    assert "Du" in (straight / "report.html").read_text()
    table = (straight / "table.md").read_text().splitlines()
    assert len(table) == 2 + 4 * 4 and table[0].startswith("| pair | row | average-precision |")
    assert (straight / "seeds.csv").read_text().startswith("pair,row,seed,task,metric,value")
    assert write_study(straight).table == whole.table

    folder = new_study("near-far", settings, torn, Pool(1, "cpu"), Progress())
    folder.close()
    lines = (straight / "cells.jsonl").read_text().splitlines(keepends=True)
    (torn / "cells.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    folder = open_study(torn, Progress())
    again = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()

    def timeless(found: Answer) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in found.table]

    assert timeless(again) == timeless(whole)
    assert json.loads((torn / "environment.json").read_text())["made_by"] == "study near-far"
