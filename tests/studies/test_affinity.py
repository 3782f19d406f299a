"""Affinity of tasks: which pairs are trained, their gains, and what is chosen by them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.studies.affinity import (
    TOGETHER,
    AffinitySettings,
    answer,
    cells,
    comparisons_of,
    gains_of,
    row_name,
)
from taskdisc.studies.multi_task import check_rows
from taskdisc.studies.run import study
from taskdisc.studies.study import Record

METRIC = {"digit": "accuracy", "bright": "mae", "random 1": "accuracy"}
TASKS: dict[str, Any] = {
    "bright": {"kind": "regression", "of": "bright", "metric": "mae"},
    "digit": {"kind": "classification", "of": "digit"},
}


def settings_of(**values: Any) -> AffinitySettings:
    """Settings of three tasks, one of them auxiliary."""
    return settings_from(AffinitySettings, {"tasks": TASKS, "aux": "random:1", **values})


def record(kind: str, seed: int, **values: float) -> Record:
    """A training with these validation metrics at its second epoch, the chosen one."""
    named = {name.replace("_", " "): value for name, value in values.items()}
    n = len(named)

    def epoch(scale: float) -> dict[str, Any]:
        found = [{METRIC[name]: scale * value} for name, value in named.items()]
        return {"validation": found, "cosines": (0.5 * np.ones((n, n))).tolist()}

    return {
        "row": row_name(kind, *named),
        "seed": seed,
        "test": {name: {} for name in named},
        "metrics": {name: METRIC[name] for name in named},
        "epoch": 2,
        "epochs": [epoch(0.1), epoch(1.0)],
    }


def test_the_main_task_is_trained_beside_each_other_one() -> None:
    found = {cell["row"] for cell in cells(settings_of(seeds=1))}
    pairs = {"pair: digit + bright", "pair: digit + random 1"}
    assert found == {TOGETHER, "alone: digit", *pairs}
    every = {cell["row"] for cell in cells(settings_of(seeds=1, every_pair=True))}
    others = {"alone: bright", "alone: random 1", "pair: bright + random 1"}
    assert every == found | others


def test_rows_without_the_main_task_are_compared_without_one() -> None:
    found = comparisons_of(settings_of(every_pair=True))
    assert found[True].main == "digit" and found[False].main is None
    row = found[False].rows["pair: bright + random 1"]
    assert row.tasks == ("bright",) and row.aux_tasks == ("random 1",)
    alone = found[False].rows["alone: random 1"]
    assert alone.tasks == () and alone.aux_tasks == ("random 1",)


def records(pair: tuple[float, ...] = (0.6, 0.55, 0.65)) -> list[Record]:
    """Three seeds: digits gain beside brightness, and lose beside a random labeling."""
    found = []
    for seed, digit in enumerate(pair):
        found += [
            record("alone", seed, digit=0.5),
            record("pair", seed, digit=digit, bright=0.2),
            record("pair", seed, digit=0.4, random_1=0.5),
            {**record("pair", seed, digit=0.4, bright=0.3, random_1=0.5), "row": TOGETHER},
        ]
    return found


def test_gains_are_relative_to_the_task_alone() -> None:
    gains = gains_of(settings_of(), records())
    np.testing.assert_allclose(gains[0, 1], [20, 10, 30])
    np.testing.assert_allclose(gains[0, 2], -20)
    assert np.isnan(gains[1:]).all() and np.isnan(gains[0, 0]).all()


def test_of_errors_less_is_a_gain() -> None:
    found = [r for r in records() if r["row"] != TOGETHER]
    found += [record("alone", seed, bright=0.4) for seed in range(3)]
    np.testing.assert_allclose(gains_of(settings_of(every_pair=True), found)[1, 0], 50)


def test_an_answer_ranks_auxiliaries_and_says_what_is_sure() -> None:
    sure = answer(settings_of(), records((0.6, 0.59, 0.61)))
    assert "'digit' gains most beside 'bright', +20.0 %" in sure.reading
    assert "Beside 1 of 2 tasks the 95 % interval of its gain is above 0: bright." in sure.reading
    assert next(iter(sure.texts.values())) == "bright\nrandom 1"
    assert [line["beside"] for line in sure.table] == ["bright", "random 1"]
    assert sure.table[0]["cosine"] == pytest.approx(0.5)
    unsure = answer(settings_of(), records((0.9, 0.3, 0.6)))
    assert "Beside 0 of 2 tasks" in unsure.reading


def test_the_default_is_the_file_of_it_and_the_other_one_can_be_trained() -> None:
    configs = Path(__file__).resolve().parents[2] / "configs" / "mtl"
    assert read_settings(AffinitySettings, configs / "affinity-digits.yaml") == settings_from(
        AffinitySettings, {}
    )
    for comparison in comparisons_of(
        read_settings(AffinitySettings, configs / "affinity.yaml")
    ).values():
        check_rows(comparison)


def test_both_sides_take_their_best_epoch() -> None:
    found = records()
    for line in found:
        line["epoch"] = 1  # whatever epoch another task chose
    np.testing.assert_allclose(gains_of(settings_of(), found)[0, 1], [20, 10, 30])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"main": "digits"}, "`main` must be the name of a task, got 'digits'; did you mean"),
        (
            {"tasks": {"digit": TASKS["digit"]}, "aux": ""},
            "`aux` must name auxiliary tasks where `tasks` has the main one alone",
        ),
        ({"common": {"aux": "random:2"}}, "`common.aux` must be left out, for each training has"),
        ({"common": {"tasks": ["digit"]}}, "`common.tasks` must be left out"),
        ({"aux": "nowhere"}, "`aux` must be a run folder or file of tasks"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        settings_of(**values)


def test_it_runs_on_a_few_digits() -> None:
    found = study(
        "affinity",
        jobs=1,
        images={"n_images": 150, "size": 16},
        tasks={"digit": {"kind": "classification", "of": "digit"}},
        aux="classes:1",
        common={"training": {"epochs": 1, "batch": 50}},
        every_pair=True,
        seeds=1,
    )
    assert [(line["task"], line["beside"]) for line in found.table] == [
        ("digit", "classes 1"), ("classes 1", "digit"),
    ]  # fmt: skip
    assert found.arrays["affinity"]["gains"].shape == (2, 2, 1)
