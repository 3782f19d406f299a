"""Packed trials are those that were added, and the best of many are those of the plain way."""

import numpy as np
import pytest

from taskdisc.discovery.trials import Trials
from taskdisc.labelings import ablation, best_different, is_near, random_labelings


@pytest.mark.parametrize("n_images", [1, 8, 50, 63])
def test_what_is_added_is_there(n_images: int) -> None:
    rng = np.random.default_rng(0)
    labelings = rng.integers(0, 2, (30, n_images)).astype(np.uint8)
    taskness = rng.normal(size=30)
    trials = Trials(n_images)
    assert len(trials) == len(trials.labelings) == 0
    for row, value in zip(labelings, taskness, strict=True):
        trials.add(row, float(value))
    np.testing.assert_array_equal([trial.labeling for trial in trials], labelings)
    assert [trial.taskness for trial in trials] == taskness.tolist() == trials.taskness.tolist()
    np.testing.assert_array_equal(trials[-1].labeling, labelings[-1])
    np.testing.assert_array_equal(trials.labelings[3:6], labelings[3:6])
    assert trials[0].labeling.dtype == np.uint8
    with pytest.raises(IndexError):
        trials[30]


def test_a_changed_taskness_changes_no_other() -> None:
    trials = Trials(4)
    for value in (0.1, 0.3, 0.3, 0.2):
        trials.add(np.array([1, 0, 0, 0], np.uint8), value)
    assert trials.best_first() == [1, 2, 3, 0]
    changed = trials.with_taskness({0: 0.9, 2: -1.0})
    assert [trial.taskness for trial in changed] == [0.9, 0.3, -1.0, 0.2]
    assert [trial.taskness for trial in trials] == [0.1, 0.3, 0.3, 0.2]
    assert changed.best_first() == [0, 1, 3, 2]


def plainly(labelings: np.ndarray, n: int, least: float, known: np.ndarray) -> list[int]:
    """The best in their order, by distances of pairs."""
    least = least / 2 if 2 * labelings[0].sum() == labelings.shape[1] else least
    chosen: list[int] = []
    for i, row in enumerate(labelings):
        others = [*known, *(labelings[j] for j in chosen)]
        if len(chosen) < n and all(ablation(row, other) >= least - 1e-9 for other in others):
            chosen.append(i)
    return chosen


@pytest.mark.parametrize("ratio", [1, 4])
@pytest.mark.parametrize(("n", "least"), [(1, 0.5), (7, 0.7), (400, 0.5), (400, 0.9), (400, 0.0)])
@pytest.mark.parametrize("n_known", [0, 3])
def test_the_best_of_many_are_those_of_the_plain_way(
    ratio: int, n: int, least: float, n_known: int
) -> None:
    rng = np.random.default_rng(1)
    labelings = random_labelings(400, 20, 20 // (ratio + 1), rng)  # more than are looked at at once
    known = random_labelings(n_known, 20, 20 // (ratio + 1), rng)
    found = best_different(labelings, range(400), n, least, known)
    assert found == plainly(labelings, n, least, known)
    for i in found[:5]:
        others = [*known, *(labelings[j] for j in found if j < i)]
        assert not is_near(labelings[i], others, least)
