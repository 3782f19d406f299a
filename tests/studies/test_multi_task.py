"""Comparisons of ways to train several tasks: their settings, their answer, and a small run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taskdisc.config import ImagesSettings, read_settings, settings_from
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.files import write_npz
from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.data import tasks_of
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.images import source_of
from taskdisc.studies.multi_task import (
    ComparisonSettings,
    answer_of,
    cells,
    check,
    check_rows,
    images_of,
    with_auxiliaries,
    work_of,
)
from taskdisc.studies.multi_task_rows import SINGLE, Rows
from taskdisc.studies.run import new_study, open_study, run_study, study, write_study
from taskdisc.studies.study import Record

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mtl"

SMALL: dict[str, Any] = {
    "images": {"n_images": 120, "size": 16},
    "common": {"training": {"epochs": 2, "batch": 40}},
    "rows": {"equal": {}, "upgrad": {"weighting": "upgrad"}},
    "seeds": 2,
}


def settings_of(**values: Any) -> ComparisonSettings:
    """Settings from nested values."""
    return settings_from(ComparisonSettings, values)


def test_labels_are_drawn_once_for_all_rows_of_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def counted(*arguments: Any) -> Any:
        seeds.append(arguments[3])
        return tasks_of(*arguments)

    monkeypatch.setattr("taskdisc.mtl.data.tasks_of", counted)
    check(settings_of(**{**SMALL, "test": 0.25}))
    assert seeds == [0, 1]


def test_the_default_is_the_file_of_it() -> None:
    assert read_settings(ComparisonSettings, CONFIGS / "digits.yaml") == settings_of()


# Studies of their own that train several tasks keep their settings beside comparisons.
OTHERS = tuple(name for name, row in STUDIES.items() if not row.command)
COMPARISONS = [path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(OTHERS)]


@pytest.mark.usefixtures("benefit_tasks")
@pytest.mark.parametrize("path", sorted(COMPARISONS), ids=lambda path: path.stem)
def test_every_file_of_settings_can_be_compared(path: Path) -> None:
    assert path.read_text().startswith("# ")
    settings = read_settings(ComparisonSettings, path)
    check_rows(settings)
    assert cells(settings)


def test_one_file_has_every_method() -> None:
    rows = read_settings(ComparisonSettings, CONFIGS / "digits-all.yaml").rows.values()
    assert {row.weighting.name for row in rows} == set(WEIGHTINGS)
    assert {row.architecture.name for row in rows} == set(ARCHITECTURES)
    assert {row.schedule.name for row in rows} == set(SCHEDULES)


def test_rows_differ_from_what_they_have_in_common() -> None:
    settings = settings_of(
        common={"backbone": {"name": "convnet", "width": 8}, "training": {"lr": 0.1, "epochs": 3}},
        rows={
            "same": {},
            "wider": {"backbone": {"width": 16}},
            "other": {"backbone": "lenet", "training": {"lr": 0.2}},
        },
    )
    same, wider, other = settings.rows.values()
    assert same == settings.common
    assert wider.backbone.name == "convnet" and wider.backbone.settings == {"width": 16}
    assert other.backbone.name == "lenet" and other.backbone.settings == {}
    assert (other.training.lr, other.training.epochs) == (0.2, 3)


def test_one_row_of_the_default_can_be_changed() -> None:
    settings = read_settings(ComparisonSettings, changes=["rows.equal.weighting=dwa"])
    assert list(settings.rows) == list(settings_of().rows)
    assert settings.rows["equal"].weighting.name == "dwa"
    kept = read_settings(ComparisonSettings, changes=["tasks.digit.weight=2"]).tasks
    assert list(kept) == list(settings_of().tasks) and kept["digit"].weight == 2


def test_single_tasks_are_trained_alone_and_plainly() -> None:
    settings = settings_of(
        **{**SMALL, "main": "parity", "common": {"weighting": "pcd", "schedule": "dst"}}
    )
    assert len(cells(settings)) == 2 * (2 + 3)
    work = work_of(settings, {"row": SINGLE, "task": "parity", "seed": 0})
    assert [task.name for task in work.tasks] == ["parity"] and work.main == 0
    assert (work.row.weighting.name, work.row.schedule.name) == ("equal", "all")
    beside = work_of(settings, {"row": "equal", "seed": 0})
    assert np.array_equal(beside.split.test, work.split.test)
    assert [task.name for task in beside.tasks][beside.main or 0] == "parity"


ONE = {"kind": "binary", "of": "digit", "positives": ["1"]}


TWO_TASKS = {"tasks": {"a": ONE, "b": ONE}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": {}}, "`rows` must have at least 1 entry, got 0"),
        ({"rows": {SINGLE: {}}}, "`rows` must have names that do not begin with 'single-task'"),
        (
            {"main": "digit", "rows": {"a": {"tasks": ["parity"]}}},
            "`rows.a.tasks` must have the main task 'digit', by which rows are compared",
        ),
        ({"rows": {"a": {"tasks": ["parity", "parity"]}}}, "every task once, got 'parity' twice"),
        ({"test_split": "train"}, "`test_split` must be a split without the images of 'train'"),
        ({"test_split": "all"}, "`test_split` must be a split without the images of 'train'"),
        ({"rows": {"a": {"tasks": ["digits"]}}}, "`rows.a.tasks` must be names of tasks"),
        ({"main": "digits"}, "`main` must be the name of a task, got 'digits'; did you mean"),
        ({"reference": "x"}, "`reference` must be the name of a row, got 'x'"),
        ({"rows": {"by hand, mine": {}}}, "do not begin with 'by hand', which is a row of `hand`"),
        ({"hand": 5}, "`hand` must be left out unless there are two tasks, got 3"),
        (
            {**TWO_TASKS, "rows": {"a": {"tasks": ["b"]}}, "hand": 5},
            "`hand` must be left out unless the first row has the two tasks in their order",
        ),
        ({"rows": {"a": {"tasks": []}}}, "`tasks` must name at least one where there is no `aux`"),
        ({"rows": {"a": {"aux_tasks": ["x"]}}}, "`aux_tasks` must be left out where there is no"),
        (
            {"rows": {"a": {"aux": "random:2", "aux_tasks": ["random 3"]}}},
            "`aux_tasks` must be names of the auxiliary tasks of 'random:2', got 'random 3'; did",
        ),
        (
            {"tasks": {"random 1": ONE}, "rows": {"a": {"aux": "random:2"}}},
            "`tasks` must have other names than auxiliary tasks, got 'random 1'",
        ),
        (
            {
                "tasks": {"auxiliaries": ONE},
                "rows": {"a": {"aux": "random:2", "aux_joined": True}},
            },
            "`tasks` must have other names than auxiliary tasks, got 'auxiliaries'",
        ),
        (
            {"rows": {"a": {"aux": "random:2", "aux_tasks": [], "aux_joined": True}}},
            "`aux_tasks` must name at least one, got none; leave out `aux`",
        ),
        ({"rows": {"a": {"aux_joined": 3}}}, "`rows.a.aux_joined` must be a valid boolean"),
        ({"rows": {"a": {"aux_weight": -1}}}, "`rows.a.aux_weight` must be greater than or equal"),
        ({"rows": {"a": {"aux_weight": math.inf}}}, "`rows.a.aux_weight` must be a finite number"),
        (
            {"rows": {"a": {"training": {"decay": "linear"}}}},
            "`rows.a.training.decay` must be one of none, cosine, got 'linear'",
        ),
        (
            {"common": {"training": {"epoch": "first"}}},
            "`common.training.epoch` must be one of best, last, got 'first'",
        ),
        ({"common": {"training": {"main_share": 0}}}, "`common.training.main_share` must be great"),
        ({"rows": {"a": {"training": {"main_share": 1.5}}}}, "must be less than or equal to 1, go"),
        (
            {"rows": {"a": {"training": {"main_share": 0.5}}}},
            "`training.main_share` must be left out where there is no main task, got 0.5; name one",
        ),
        (
            {"tasks": {"a": {**ONE, "labelled_validation": -1}}},
            "`tasks.a.labelled_validation` must be greater than or equal to 0, got -1",
        ),
        (
            {"tasks": {"a": {**ONE, "labelled_validation": 900}}, "rows": {"a": {}}},
            "`labelled_validation` of task 'a' must be at most the 270 validation images that have",
        ),
        ({"across": {"x": {"wei": 1}}}, "in `across.x`, `wei` is not a setting"),
        (
            {"rows": {"a": {"training": {"head_lr": {"digits": 0.5}}}}},
            "`rows.a.training.head_lr` must be names of tasks, got 'digits'; did you mean 'digit'",
        ),
        (
            {"rows": {"a": {"training": {"head_lr": {"digit": 0}}}}},
            "`rows.a.training.head_lr.digit` must be greater than 0",
        ),
        (
            {"rows": {"a": {"architecture": {"name": "label-reuse", "giver": "digits"}}}},
            "`giver` of architecture 'label-reuse' must be a task, got 'digits'; did you mean",
        ),
        ({"rows": {"a": {"weighting": "x"}}}, "in row 'a', the weighting must be a known one"),
        ({"rows": {"a": {"weighting": "pcd"}}}, "in row 'a', `main` must name the main task"),
        (
            {"rows": {"a": {"weighting": "krum", "tasks": ["digit", "parity"]}}},
            "in row 'a', `n_tasks` must be at least 3 for weighting 'krum'",
        ),
        ({"rows": {"a": {"architecture": "x"}}}, "in row 'a', the architecture must be"),
        ({"rows": {"a": {"schedule": {"name": "dst", "depth": 1}}}}, "must add up to 1"),
        ({"rows": {"a": {"backbone": {"name": "resnet", "depth": 21}}}}, "in row 'a', `depth`"),
        ({"tasks": {"a": {"of": "digit"}}}, "`tasks.a.kind` must be given, got nothing"),
        (
            {"images": {"seed": 3}},
            "`images.seed` must be left out where no images are drawn, got 3",
        ),
        (
            {"images": {"target": "digit"}},
            "`images.target` must be left out where no images are drawn, got 'digit'",
        ),
        ({"images": {"size": 8}}, "images must be at least 16 x 16 pixels for backbone 'lenet'"),
        ({"test_split": "test"}, "`split` must be train or all for 'digits'"),
        (
            {"images": {"n_images": 30}, "seeds": 12, "tasks": {"one": ONE}, "rows": {"a": {}}},
            "task 'one' must have at least two classes among its training images",
        ),
    ],
)
def test_comparisons_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check(settings_of(**values))


METRIC = {"a": "accuracy", "b": "mae", "c": "accuracy", "d": "accuracy"}


def record(row: str, seed: int, **test: float | None) -> Record:
    """A record of two epochs with these test metrics."""
    n = len(test)
    epoch = {
        "active": list(range(n)),
        "losses": [1.0] * n,
        "weights": [1.0] * n,
        "cosines": [[1.0] * n] * n,
        "conflicts": 0.0 if n > 1 else None,
        "validation": [{"loss": 1.0, METRIC[name]: 0.5} for name in test],
        "score": 0.5,
    }
    return {
        "row": row,
        "seed": seed,
        "test": {name: {"loss": 1.0, METRIC[name]: value} for name, value in test.items()},
        "blind": {name: {"loss": 2.0, METRIC[name]: 0.25} for name in test},
        "metrics": {name: METRIC[name] for name in test},
        "epoch": 2,
        "epochs": [{"epoch": 1, **epoch}, {"epoch": 2, **epoch}],
        "shown": [{"title": "units", "matrix": [[1.0] * n] * n, "text": ""}],
        "parameters": 10,
        "seconds": 1.0,
        "step_seconds": 0.01,
    }


TWO = {
    "tasks": {
        "a": {"kind": "classification", "of": "digit"},
        "b": {"kind": "regression", "of": "bright", "metric": "mae"},
    },
    "rows": {"first": {}, "second": {"weighting": "uncertainty"}},
}


def records(second: tuple[float | None, float | None]) -> list[Record]:
    """Two seeds: the first row as good as single tasks, the second with these metrics."""
    found = []
    for seed in (0, 1):
        found += [
            record("first", seed, a=0.5, b=2.0),
            record("second", seed, a=second[0], b=second[1]),
            record(SINGLE, seed, a=0.5),
            record(SINGLE, seed, b=2.0),
        ]
    return found


def test_delta_m_is_the_mean_relative_gain_and_errors_count_backwards() -> None:
    rows = Rows(settings_of(**TWO), records((0.6, 1.0)))
    np.testing.assert_allclose(rows.gains["second"], (20 + 50) / 2)
    np.testing.assert_allclose(rows.gains["first"], 0)
    assert set(rows.gains) == {"first", "second"}


def test_an_answer_says_which_rows_differ() -> None:
    settings = settings_of(**TWO)
    better = answer_of(settings, records((0.6, 1.0)))
    assert "Paired with 'first', better in Δm [%]: 'second' (+35.00" in better.reading
    worse = answer_of(settings, records((0.4, 2.0)))
    assert "worse in Δm [%]: 'second' (-10.00" in worse.reading
    assert [line["row"] for line in worse.table] == ["first", "second", SINGLE]
    assert worse.table[1]["gain on first"] == pytest.approx(-10)
    assert set(better.papers) == {"hard-sharing", "lenet", "equal", "uncertainty"}
    assert {"rows", "plane", "epochs", "conflicts", "learned"} <= set(better.plots)


def test_auxiliaries_are_held_against_random_ones_of_the_same_row() -> None:
    settings = settings_of(
        tasks={"a": {"kind": "classification", "of": "digit"}},
        main="a",
        single_tasks=False,
        rows={
            "none": {},
            "random": {"aux": "random:2"},
            "classes": {"aux": "classes:2"},
            "random, pcgrad": {"aux": "random:2", "weighting": "pcgrad"},
            "classes, pcgrad": {"aux": "classes:2", "weighting": "pcgrad"},
            "classes, mgda": {"aux": "classes:2", "weighting": "mgda"},
        },
    )
    accuracy = [0.5, 0.4, 0.6, 0.7, 0.6, 0.9]
    found = [
        record(name, seed, a=value)
        for name, value in zip(settings.rows, accuracy, strict=True)
        for seed in (0, 1)
    ]
    answer = answer_of(settings, found)
    over = [line["gain on random"] for line in answer.table]
    assert over[2] == pytest.approx(0.2) and over[4] == pytest.approx(-0.1)
    assert [over[i] for i in (0, 1, 3, 5)] == [None] * 4  # without a control, or one themselves
    assert "random auxiliaries, better in accuracy of a: 'classes' (+0.2000" in answer.reading
    assert "random auxiliaries, worse in accuracy of a: 'classes, pcgrad' (-0.1" in answer.reading
    assert "gain on random [95 %]" in answer.summary[0]


def test_rows_are_compared_over_the_tasks_that_both_have() -> None:
    settings = settings_of(**TWO)
    few = [
        r if r["row"] != "second" else record("second", r["seed"], b=2.0) for r in records((1, 1))
    ]
    rows = Rows(settings, few)
    np.testing.assert_allclose(rows.differences["second"], 0)
    np.testing.assert_allclose(rows.gains["second"], 0)


def test_one_metric_that_is_missing_in_one_seed_is_left_out_there() -> None:
    found = records((0.6, 1.0))
    for name, values in found[5]["test"].items():
        values[METRIC[name]] = None  # the second row of the second seed
    answer = answer_of(settings_of(**TWO), found)
    assert "nan" not in answer.reading and answer.table[1]["Δm [%]"] == pytest.approx(35)
    assert [line["n_compared"] for line in answer.table[:2]] == [2, 1]


def test_a_seed_near_nothing_does_not_decide() -> None:
    found = [r for r in records((0.5, 2.0)) if r["row"] != SINGLE]
    for seed, single in ((0, 0.01), (1, 0.99)):
        found += [record(SINGLE, seed, a=single), record(SINGLE, seed, b=2.0)]
    rows = Rows(settings_of(**TWO), found)
    np.testing.assert_allclose(rows.gains["second"].mean(), 0, atol=1e-9)


def test_rows_that_are_the_same_are_said_to_be() -> None:
    reading = answer_of(settings_of(**TWO), records((0.5, 2.0))).reading
    assert "The same in every seed as 'first': 'second'." in reading and "open" not in reading


def test_explained_variance_is_compared_by_what_is_left() -> None:
    settings = settings_of(
        tasks={"a": {"kind": "regression", "of": "bright"}}, rows={"first": {}, "second": {}}
    )
    found = [record("first", 0, a=0.9), record("second", 0, a=0.95), record(SINGLE, 0, a=0.0)]
    for line in found:
        line["metrics"] = {"a": "r2"}
        line["test"]["a"]["r2"] = line["test"]["a"]["accuracy"]
        line["epochs"][0]["validation"][0]["r2"] = 0.5
    rows = Rows(settings, found)
    np.testing.assert_allclose(rows.gains["first"], 90)
    np.testing.assert_allclose(rows.differences["second"], 50)


def test_rows_of_another_backbone_have_single_tasks_of_their_own() -> None:
    settings = settings_of(
        **{
            **SMALL,
            "tasks": {"a": {**ONE, "weight": 0}, "b": ONE},
            "rows": {"x": {}, "y": {"backbone": "convnet"}, "z": {"backbone": "convnet"}},
            "seeds": 1,
        }
    )
    alone = [(cell["row"], cell["task"]) for cell in cells(settings) if "task" in cell]
    other = "single-task as 'y'"
    assert alone == [(SINGLE, "a"), (SINGLE, "b"), (other, "a"), (other, "b")]
    work = work_of(settings, {"row": other, "task": "a", "seed": 0})
    assert work.row.backbone.name == "convnet" and work.tasks[0].weight == 1


def test_every_row_is_trained_in_every_variant() -> None:
    settings = settings_of(
        rows={"a": {"training": {"lr": 0.1}}, "b": {"architecture": "mtan"}},
        across={"plain": {}, "slow": {"weighting": "pcgrad", "training": {"epochs": 3}}},
        reference="b, plain",
    )
    found = settings.every_row
    assert list(found) == ["a, plain", "b, plain", "a, slow", "b, slow"]
    slow = found["a, slow"]
    assert (slow.weighting.name, slow.training.lr, slow.training.epochs) == ("pcgrad", 0.1, 3)
    assert found["b, slow"].architecture.name == "mtan"
    # What is written to a run's folder and read again is the same, not taken twice.
    assert settings_of(**settings.model_dump(mode="json")) == settings
    assert len(cells(settings)) == 3 * (4 + 2 * 3 + 2 * 3)  # single tasks of every training


def test_weights_by_hand_go_from_one_task_to_the_other() -> None:
    settings = settings_of(**TWO, hand=5)
    weights = [row.weighting.settings for row in settings.every_row.values()][2:]
    assert weights == [{"weights": [w, 1 - w]} for w in (1, 0.75, 0.5, 0.25, 0)]
    assert list(settings.every_row)[2:4] == ["by hand 1 / 0", "by hand 0.75 / 0.25"]
    tenths = settings_of(**TWO, hand=11).by_hand
    assert "by hand 0.7 / 0.3" in tenths and tenths["by hand 0.7 / 0.3"] == [0.7, 0.3]


def test_the_weights_by_hand_are_chosen_on_validation() -> None:
    settings = settings_of(**TWO, hand=2, single_tasks=False)
    found = [record("first", 0, a=0.5, b=2.0), record("second", 0, a=0.7, b=1.0)]
    # The second has the better test metrics, the first the better validation score.
    for row, score, test in (("1 / 0", 0.9, (0.6, 1.5)), ("0 / 1", 0.8, (0.9, 1.2))):
        found.append(record(f"by hand {row}", 0, a=test[0], b=test[1]))
        found[-1]["epochs"][1]["score"] = score
    rows = Rows(settings, found)
    assert rows.chosen_by_hand() == "by hand 1 / 0"
    assert rows.beaten_by_hand() == ["first"]
    answer = answer_of(settings, found)
    assert "Of the 2 weights by hand, 1 / 0 have the best mean validation score" in answer.reading
    assert "Of the 2 other rows, 1 are behind" in answer.reading
    assert "hand" in answer.plots


def test_places_are_by_seed_and_the_best_is_first() -> None:
    settings = settings_of(**TWO)
    found = []
    for seed, second in enumerate((0.6, 0.4, 0.5)):
        found += [record("first", seed, a=0.5, b=2.0), record("second", seed, a=second, b=1.0)]
    rows = Rows(settings, found)
    assert rows.ranks("a", "accuracy")["first"].tolist() == [2, 1, 1.5]
    assert rows.ranks("b", "mae")["second"].tolist() == [1, 1, 1]
    lines = answer_of(settings, found).more["tasks"]
    assert lines[0]["place (from, to)"] == "1.5 (1, 2)"
    assert lines[1]["difference to first [95 %]"] == "+0.0000 (-0.2484 to +0.2484)"


def test_other_metrics_are_shown_and_what_needs_no_image() -> None:
    tasks = {name: {**task, "also": "loss"} for name, task in TWO["tasks"].items()}
    answer = answer_of(settings_of(**{**TWO, "tasks": tasks}), records((0.6, 1.0)))
    first, *_, blind = answer.summary
    assert first["a: loss"] == "1.000 ± 0.000" and blind["a: loss"] == "2.000 ± 0.000"
    assert (blind["row"], blind["a: accuracy"]) == ("blind", "0.250 ± 0.000")


def test_tasks_with_one_metric_have_a_mean() -> None:
    tasks = {name: {"kind": "binary", "of": "digit", "positives": ["1"]} for name in "acd"}
    found = [record("first", seed, a=0.5, c=0.7, d=0.9 + seed / 5) for seed in (0, 1)]
    answer = answer_of(settings_of(tasks=tasks, rows={"first": {}}, single_tasks=False), found)
    assert answer.table[0]["mean: accuracy"] == pytest.approx((0.7 + 0.7 + 0.2 / 3) / 2)


def test_a_task_of_an_architecture_may_be_given_by_its_name() -> None:
    reuse = {"name": "label-reuse", "giver": "parity"}
    settings = settings_of(**{**SMALL, "rows": {"reuse": {"architecture": reuse}}})
    work = work_of(settings, {"row": "reuse", "seed": 0})
    assert [task.name for task in work.tasks].index("parity") == work.row.architecture.settings[
        "giver"
    ]


def changed(settings: ComparisonSettings, *given: str) -> ComparisonSettings:
    """The settings with these auxiliaries for every row, as the command sets them."""
    changes = [change.partition("=") for change in with_auxiliaries(settings, given)]
    values = {name: json.loads(value) for name, _, value in changes}
    return settings_of(**{**settings.model_dump(mode="json"), **values})


def test_every_row_is_also_trained_with_each_of_the_auxiliaries() -> None:
    settings = settings_of(**SMALL, reference="upgrad")
    found = changed(settings, "random:2", "classes:3")
    assert [*found.across] == ["no auxiliaries", "random 2", "classes 3"]
    assert len(found.every_row) == 2 * 3 and found.main == "digit"
    assert found.reference == "upgrad, no auxiliaries"
    work = work_of(found, {"row": "equal, classes 3", "seed": 0})
    assert [task.name for task in work.tasks][3:] == ["classes 1", "classes 2", "classes 3"]
    assert work.main == 0 and work.tasks[0].name == "digit"
    alone = work_of(found, {"row": "equal, no auxiliaries", "seed": 0})
    assert len(alone.tasks) == 3


def test_without_auxiliaries_is_without_those_of_the_rows() -> None:
    settings = settings_of(**{**SMALL, "rows": {"a": {"aux": "random:3"}}})
    found = changed(settings, "classes:2")
    assert found.every_row["a, no auxiliaries"].aux == ""
    assert found.every_row["a, classes 2"].aux == "classes:2"


def test_auxiliaries_may_be_one_task_of_a_weight() -> None:
    row = {"aux": "random:3", "aux_joined": True, "aux_weight": 5, "aux_tasks": ["random 3"]}
    settings = settings_of(
        **{**SMALL, "main": "digit", "rows": {"a": row, "b": {"aux": "random:3"}}}
    )
    a, b = (work_of(settings, {"row": name, "seed": 0}).tasks for name in "ab")
    assert [task.name for task in a[len(a) - 1 :]] == ["auxiliaries"] and a[-1].weight == 5
    np.testing.assert_array_equal(a[-1].labels, b[-1].labels)
    assert len(a) == len(b) - 2 and {task.weight for task in b} == {1}


def test_auxiliaries_for_every_row_are_named_once() -> None:
    settings = settings_of(**SMALL)
    with pytest.raises(SettingError, match="--aux must name different auxiliaries, got 'random 2'"):
        with_auxiliaries(settings, ["random:2", "random:2"])
    with pytest.raises(SettingError, match="`across` must be left out where --aux is given"):
        with_auxiliaries(settings_of(**SMALL, across={"x": {}}), ["random:2"])


def test_auxiliaries_follow_the_split() -> None:
    settings = settings_of(**{**SMALL, "rows": {"a": {"aux": "random:1"}}})
    for test in (0.2, 0.5):
        of_split = settings.model_copy(update={"test": test})
        work = work_of(of_split, {"row": "a", "seed": 0})
        known = np.flatnonzero(work.tasks[-1].known)
        assert not np.isin(work.split.test, known).any()
        assert np.isin(work.split.train, known).all()


def without_both_labels(got: str, train: np.ndarray) -> np.ndarray:
    """Labels of 120 images, with one for all or none among those that train."""
    labels = np.arange(120) % 2
    labels[train] = -1 if got == "none" else 1
    return labels


@pytest.mark.parametrize("aux_joined", [False, True])
@pytest.mark.parametrize("training", [{}, {"main_share": 0.5}])
@pytest.mark.parametrize("got", ["none", "one for all of 78"])
def test_an_auxiliary_has_both_labels_among_the_training_images(
    tmp_path: Path, got: str, aux_joined: bool, training: dict[str, float]
) -> None:
    values = {**SMALL, "images": {"n_images": 120}, "main": "digit", "rows": {"a": {}}}
    plain = work_of(settings_of(**values), {"row": "a", "seed": 0})
    labelings = np.stack([np.arange(120) // 2 % 2, without_both_labels(got, plain.split.train)])
    arrays = {
        "labelings": labelings.astype(np.int8),
        "indices": plain.images.indices,
        "hashes": np.array(plain.images.hashes()),
        **{name: np.ones(2) for name in ("taskness", "sem", "p_adjusted")},
    }
    write_npz(tmp_path / "tasks.npz", arrays)
    row = {"aux": str(tmp_path / "tasks.npz"), "aux_joined": aux_joined, "training": training}
    words = f"task 'labeling-2' must have two labels among the 78 training images, got {got};"
    with pytest.raises(SettingError, match=words):
        work_of(settings_of(**{**values, "rows": {"a": row}}), {"row": "a", "seed": 0})
    row["aux_tasks"] = ["labeling-1"]  # the cure
    work = work_of(settings_of(**{**values, "rows": {"a": row}}), {"row": "a", "seed": 0})
    assert work.tasks[-1].name == ("auxiliaries" if aux_joined else "labeling-1")


def divided(folder: Path, **sides: int) -> Path:
    """A folder of class folders in splits, of images of a side each."""
    for seed, (split, side) in enumerate(sides.items()):
        rng = np.random.default_rng(seed)
        for name in "ab":
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def test_both_splits_are_one_map_of_the_cache(tmp_path: Path) -> None:
    given = ImagesSettings(source="folder", root=str(divided(tmp_path / "i", train=32, test=32)))
    both, n_test = images_of.__wrapped__(given, "test")
    assert n_test == 8 and len(both) == 16
    train, test = (source_of(given.model_copy(update={"split": s})) for s in ("train", "test"))
    np.testing.assert_array_equal(both.images, np.concatenate([train.images, test.images]))
    for name, column in both.targets.items():
        assert column.tolist() == [*train.targets[name], *test.targets[name]]
    # Neither this process nor another one holds a copy.
    assert isinstance(both.images, np.memmap) and not both.images.flags.writeable
    again, _ = images_of.__wrapped__(given, "test")
    assert again.images.filename == both.images.filename


def test_both_splits_have_images_of_one_size(tmp_path: Path) -> None:
    root = str(divided(tmp_path / "i", train=32, test=40))
    given = ImagesSettings(source="folder", root=root, size="own")
    words = "'test' must be as large as those of 'train', 32 x 32 pixels, got 40 x 40; set"
    with pytest.raises(ImageSetError, match=words):
        images_of.__wrapped__(given, "test")


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    values = {**SMALL, "rows": {r"a $\foo$ <b>": {}}, "seeds": 1, "single_tasks": False}
    folder = new_study("mtl", settings_of(**values), tmp_path / "run", Pool(1, "cpu"), Progress())
    run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()
    assert "<b>" not in (tmp_path / "run" / "report.html").read_text()


def test_rows_are_compared_by_the_main_task_where_there_is_one() -> None:
    settings = settings_of(**TWO, main="b")
    answer = answer_of(settings, records((0.9, 3.0)))
    assert answer.table[1]["gain on first"] == pytest.approx(-1)  # an error that grew
    assert "mae of b of 'first' is 2.000" in answer.reading
    assert "worse in mae of b: 'second' (-1.0000" in answer.reading


def test_a_metric_that_could_not_be_measured_is_left_out() -> None:
    answer = answer_of(settings_of(**TWO), records((None, 1.0)))
    assert answer.table[1]["a: accuracy"] is None
    assert answer.table[1]["Δm [%]"] == pytest.approx(50)


def test_a_comparison_is_the_same_with_two_workers_and_from_its_journal(tmp_path: Path) -> None:
    settings = settings_of(**{**SMALL, "seeds": 1})
    folder = new_study("mtl", settings, tmp_path / "run", Pool(1, "cpu"), Progress())
    answer = run_study(folder, Pool(1, "cpu"), Progress())
    folder.close()

    def timeless(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in line.items() if k not in ("seconds", "step [ms]")} for line in table
        ]

    again = study("mtl", jobs=2, **{**SMALL, "seeds": 1})
    assert timeless(again.table) == timeless(answer.table)
    assert write_study(tmp_path / "run").table == answer.table
    files = {path.name for path in (tmp_path / "run" / "cells" / "0-equal-0").iterdir()}
    assert {"best.ckpt", "metrics.csv"} <= files and "last.ckpt" not in files
    seeds = (tmp_path / "run" / "seeds.csv").read_text().splitlines()
    assert seeds[0] == "row,seed,task,metric,value,blind,epoch"
    assert len(seeds) == 1 + 3 * (3 + 5 + 5)  # loss and metrics of a classification, two binary
    epochs = (tmp_path / "run" / "epochs.csv").read_text().splitlines()
    assert len(epochs) == 1 + 2 * 3 * 3
    lines = (tmp_path / "run" / "table.md").read_text().splitlines()
    assert lines[0].startswith("| row | digit: accuracy |") and len(lines) == 3 + len(answer.table)
    assert lines[-1].startswith("| blind |")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Jacobian Descent for Multi-Objective Optimization" in page and "Δm" in page
    reopened = open_study(tmp_path / "run", Progress())
    assert run_study(reopened, Pool(1, "cpu"), Progress()).table == answer.table
    reopened.close()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["made_by"] == "mtl"
