import re
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from taskdisc.config import settings_from
from taskdisc.errors import SettingError
from taskdisc.images.measures import MEASURES
from taskdisc.studies.real_vs_random import (
    STUDY,
    RealVsRandomSettings,
    attribute_labelings,
    auc,
    roc,
)
from taskdisc.studies.run import study

SMALL: dict[str, Any] = {
    "images": {"n_classes": 3, "per_class": 5},
    "n_random": 10,
    "n_seeds": 3,
    "protocol": {"name": "stratified", "n_splits": 5, "n_steps": 5},
}


def records_with(shift: float) -> list[dict[str, Any]]:
    """Image sets whose random labelings are normal, and whose classes are some s.d. above."""
    rng = np.random.default_rng(0)

    def some(n: int, mean: float) -> dict[str, float]:
        return {str(i): float(value) for i, value in enumerate(rng.normal(mean, 1, n))}

    return [
        {"seed": k, "class": some(200, shift), "attribute": some(200, 0), "random": some(400, 0)}
        for k in range(5)
    ]


def test_error_rates_and_auc_of_known_distributions() -> None:
    settings = settings_from(RealVsRandomSettings, {"n_seeds": 5, "n_random": 400})
    answer = STUDY.answer(settings, records_with(3))
    rates = {
        kind: np.mean([row["above"] for row in answer.table if row["kind"] == kind])
        for kind in ("class", "attribute", "random")
    }
    assert rates["random"] == pytest.approx(0.05, abs=0.015)
    assert rates["attribute"] == pytest.approx(0.05, abs=0.02)
    assert rates["class"] == pytest.approx(0.912, abs=0.02)  # Φ(3 − 1.645)
    areas = re.findall(r"([0-9.]+) \[[0-9.]+, [0-9.]+\] for (\w+) labelings", answer.reading)
    assert {kind: float(area) for area, kind in areas} == {
        "class": pytest.approx(0.983, abs=0.01),  # Φ(3 / √2)
        "attribute": pytest.approx(0.5, abs=0.03),
    }


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 30).round(1), rng.normal(0, 1, 40).round(1)
    expected = roc_auc_score([1] * 30 + [0] * 40, np.concatenate([a, b]))
    assert auc(a, b) == pytest.approx(expected)


def test_roc_rises_from_what_is_above_all_to_all() -> None:
    curve = roc(np.array([1.0, 3.0]), np.array([0.0, 2.0]), np.array([0.0, 0.5, 1.0]))
    assert curve.tolist() == [0.5, 0.5, 1.0]


def test_attributes_are_seen_in_the_pixels() -> None:
    pixels = np.zeros((5, 4, 4, 3))
    pixels[1, ..., 0] = 1  # red
    pixels[2] = 0.9  # bright
    pixels[3, :2] = 1  # bright above
    pixels[4, :, :2] = 1  # bright on the left
    highest = {name: int(np.argmax(of(pixels))) for name, of in MEASURES.items()}
    assert highest["red"] == 1 and highest["saturated"] == 1
    assert highest["bright"] == 2
    assert highest["bright above"] == 3
    assert highest["bright on the left"] == 4


def test_attributes_that_images_do_not_differ_in_are_left_out() -> None:
    grey = np.repeat(np.random.default_rng(0).random((20, 8, 8, 1)), 3, axis=3)
    assert not {"red", "green", "blue", "saturated"} & set(attribute_labelings(grey, 5))
    coloured = np.random.default_rng(0).random((20, 8, 8, 3))
    assert set(attribute_labelings(coloured, 5)) == set(MEASURES)
    assert all(labeling.sum() == 5 for labeling in attribute_labelings(coloured, 5).values())


def test_the_study() -> None:
    answer = study("real-vs-random", jobs=1, **SMALL)
    counts = {
        kind: sum(row["kind"] == kind for row in answer.table)
        for kind in ("class", "attribute", "random")
    }
    assert counts == {"class": 9, "attribute": 3 * 4, "random": 30}
    assert list(answer.plots) == ["real-vs-random"]
    assert "over 3 image sets" in answer.reading


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_random": 5}, r"`n_random` times \(`n_seeds` − 1\) must be at least 20"),
        ({"n_seeds": 2}, "`n_seeds` must be"),
        ({"images": {"n_images": 50}}, "`images"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        study("real-vs-random", jobs=1, **{**SMALL, **changes})
