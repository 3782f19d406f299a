from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from taskdisc.config import ImagesSettings, settings_from
from taskdisc.errors import SettingError
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.images import one_against_rest
from taskdisc.studies.positives import STUDY, PositivesSettings, fitted, validation_auc
from taskdisc.studies.run import study
from taskdisc.taskness.score import Splits, score

SMALL: dict[str, Any] = {
    "n_positives": [5, 10],
    "ratios": [1, 3],
    "n_seeds": 2,
    "protocol": {"name": "stratified", "n_splits": 5, "n_steps": 5, "most_images": 0},
}


def splits_with(labels: np.ndarray, validation: np.ndarray) -> Splits:
    return Splits(labels, validation, np.zeros(len(labels), dtype=np.int64))


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permuted(np.tile([1] * 6 + [0] * 14, (3, 1)), axis=1)
    validation = np.ones((3, 20), dtype=bool)
    validation[:, ::3] = False
    probability = rng.random((4, 3, 20))
    losses = -np.log(np.where(labels == 1, probability, 1 - probability))
    areas = validation_auc(losses, splits_with(labels, validation))
    assert areas.shape == (3, 4)
    for model in range(3):
        seen = validation[model]
        for step in range(4):
            expected = roc_auc_score(labels[model, seen], probability[step, model, seen])
            assert areas[model, step] == pytest.approx(expected)


def test_auc_of_sure_networks() -> None:
    labels = np.array([[1, 1, 0, 0]])
    every = splits_with(labels, np.ones((1, 4), dtype=bool))
    losses = np.array([[[0.0, 1e-9, 0.0, 1e-9]], [[100.0, 100.0, 100.0, 100.0]]])
    assert validation_auc(losses, every).tolist() == [[1.0, 0.0]]


def test_taskness_is_that_of_the_score() -> None:
    settings = settings_from(PositivesSettings, SMALL)
    cell = {"n_positives": 10, "ratio": 3, "seed": 1}
    record = STUDY.measure(settings, cell, Pool(1, "cpu"), Progress())
    images, labeling = one_against_rest(ImagesSettings(), 10, 30, 1, 10)
    scores = score(images, labeling, protocol=settings.protocol, seed=1, jobs=1)
    assert record["taskness"] == pytest.approx(float(scores.taskness[0]), rel=1e-6)
    assert record["n_images"] == 40
    assert len(record["auc_curve"]) == len(record["taskness_curve"]) == 6


def test_the_fit_finds_what_was_put_in() -> None:
    settings = settings_from(
        PositivesSettings, {"n_positives": [10, 20, 40], "ratios": [1, 3, 9], "n_seeds": 5}
    )
    n_pos, ratios = np.meshgrid([10, 20, 40], [1, 3, 9], indexing="ij")
    values = 0.2 + 0.1 * np.log2(n_pos) - 0.03 * np.log2(n_pos * ratios)
    repeats = values + np.linspace(-0.1, 0.1, 5)[:, None, None]
    np.testing.assert_allclose(fitted(settings, repeats), [[0.1, -0.03]] * 5, atol=1e-9)


def test_the_study() -> None:
    answer = study("positives", jobs=1, **SMALL)
    rows = [(row["n_positives"], row["ratio"], row["n_images"]) for row in answer.table]
    assert rows == [(5, 1, 10), (5, 3, 20), (10, 1, 20), (10, 3, 40)]
    assert all(0 <= row["auc"] <= 1 for row in answer.table)
    assert list(answer.plots) == ["positives", "curves"]
    assert "By area under the ROC curve, doubling the positives" in answer.reading
    assert answer.table == study("positives", jobs=1, **SMALL).table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_positives": [4, 10]}, "`n_positives` must be at least `protocol.n_folds` = 5.*got 4"),
        ({"protocol": "source"}, "`protocol.splits` must be stratified"),
        ({"n_positives": [10, 10]}, "must be different numbers"),
        ({"n_positives": [10]}, "`n_positives`"),
        ({"images": {"n_classes": 3, "per_class": 3}}, "`images.n_classes` must be left out"),
    ],
)
def test_bad_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        study("positives", jobs=1, **{**SMALL, **changes})
