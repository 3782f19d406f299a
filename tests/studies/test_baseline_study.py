from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskdisc.config import read_settings, settings_from
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.baseline import BaselineSettings, answer, cells, measure
from taskdisc.studies.run import measure_cells
from taskdisc.taskness.score import read_out

SMALL: dict[str, Any] = {
    "images": {"n_classes": 3, "per_class": 5},
    "n_random": 5,
    "n_seeds": 2,
    "protocol": {"n_splits": 1, "n_steps": 8, "most_images": 0},
}
POOL = Pool(1, "cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "studies"


def settings_with(**changes: Any) -> BaselineSettings:
    return settings_from(BaselineSettings, {**SMALL, **changes})


def test_the_curves_and_both_baselines_are_those_that_make_taskness() -> None:
    record = measure(settings_with(), {"seed": 1}, POOL, Progress())
    assert len(record["random"]) == 5
    assert len(record["classes"]) == 3
    for one in record["classes"]:
        # One split: nothing is lost in the mean over splits.
        b = (one["informed"] + read_out(np.array(one["blind"]))) / 2
        g = read_out(np.array(one["validation"]))
        assert one["taskness"] == pytest.approx((b - g) / b, abs=1e-4)
        assert one["informed"] == pytest.approx(-np.log(1 / 3) / 3 - 2 * np.log(2 / 3) / 3, 1e-4)
        assert len(one["training"]) == len(one["blind"]) == 9
        assert one["training"][-1] < one["training"][0]


def test_drawn_classes_change_and_named_ones_stay_with_other_images() -> None:
    drawn = measure_cells("baseline", settings_with(), POOL, Progress())
    assert len({tuple(one["class"] for one in record["classes"]) for record in drawn}) == 2
    named = settings_with(images={"per_class": 5}, classes=["3", "8", "1"])
    records = measure_cells("baseline", named, POOL, Progress())
    for record in records:
        assert [one["class"] for one in record["classes"]] == ["3", "8", "1"]
    assert records[0]["classes"][0]["training"] != records[1]["classes"][0]["training"]
    found = answer(named, records)
    assert {row["class"] for row in found.table} == {"3", "8", "1"}
    assert all(row["repeats"] == 2 for row in found.table)
    assert list(found.plots) == ["curves", "taskness"]
    assert len(found.plots["curves"].figure.axes) == 3


def made_up(*taskness: dict[str, float]) -> list[dict[str, Any]]:
    curve = [0.7, 0.6]
    curves = {"training": curve, "validation": curve, "blind": curve, "informed": 0.5}
    return [
        {
            "seed": number,
            "classes": [{"class": name, "taskness": t, **curves} for name, t in repeat.items()],
            "random": [0.1] * 5,
        }
        for number, repeat in enumerate(taskness)
    ]


def test_margins_over_t_task_and_a_reading_that_follows_them() -> None:
    settings = settings_with(images={"per_class": 5}, classes=["ship", "deer", "frog"])
    good = {"ship": 0.58, "deer": 0.05, "frog": 0.3}
    better = {"ship": 0.62, "deer": 0.048, "frog": 0.0}
    found = answer(settings, made_up(good, better))
    rows = {row["class"]: row for row in found.table}
    assert list(rows) == ["ship", "frog", "deer"]
    assert rows["ship"]["margin"] == pytest.approx(0.5)
    assert rows["ship"]["margin_sem"] == pytest.approx(0.02)
    assert [row["repeats_above"] for row in rows.values()] == [2, 1, 0]
    assert "'ship' (+0.500 ± 0.020) clearly exceed T_task" in found.reading
    assert "'frog' (+0.050 ± 0.150) cannot be told from T_task" in found.reading
    assert "'deer' (-0.051 ± 0.001) clearly stay below T_task" in found.reading


def test_a_class_that_one_repeat_drew_has_no_standard_error() -> None:
    found = answer(settings_with(), made_up({"a": 0.5, "b": 0.4}, {"a": 0.6, "c": 0.0}))
    rows = {row["class"]: row for row in found.table}
    assert rows["a"]["margin_sem"] == pytest.approx(0.05)
    assert rows["b"]["margin_sem"] is None
    assert "3 of 4 class labelings exceed T_task" in found.reading
    assert "Their taskness is 0.375 ± 0.075, 0.275 ± 0.075 over T_task" in found.reading


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ["1", "2", "1"]}, "`classes` must be different classes, got '1' twice"),
        ({"images": {"per_class": 5}, "classes": ["1", "2"]}, "must be at least 3, for one"),
        ({"images": {"n_classes": 2}}, "`images.n_classes` must be at least 3.* got 2"),
        ({"images": {"n_classes": 3, "per_class": 4}}, "`images.per_class` must be at least"),
        ({"images": {"n_images": 50}}, "`images.n_images` must be left out"),
        ({"protocol": {"most_images": 10}}, "`protocol.most_images` must be 0.* 15 images"),
        ({"protocol": "sauce"}, "did you mean 'source'"),
        ({"n_seeds": 1}, "`n_seeds`"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        cells(settings_with(**changes))


def test_an_unknown_class_is_named() -> None:
    settings = settings_with(images={"per_class": 5}, classes=["1", "2", "ship"])
    with pytest.raises(SettingError, match="must be classes of the target 'digit', got 'ship'"):
        measure(settings, {"seed": 0}, POOL, Progress())


def test_committed_settings_are_valid() -> None:
    digits = read_settings(BaselineSettings, CONFIGS / "baseline-digits.yaml")
    assert digits == BaselineSettings()
    for name in ("baseline", "baseline-cifar10"):
        settings = read_settings(BaselineSettings, CONFIGS / f"{name}.yaml")
        assert len(STUDIES["baseline"].cells(settings)) == settings.n_seeds
    assert settings.classes == ("ship", "horse", "deer", "frog")


def test_the_classes_of_cifar100_exist() -> None:
    from taskdisc.images.cifar100 import FINE_NAMES

    settings = read_settings(BaselineSettings, CONFIGS / "baseline.yaml")
    assert set(settings.classes) <= set(FINE_NAMES)
