from itertools import combinations

import numpy as np
import pytest

import taskdisc
from taskdisc.errors import ImageSetError, SettingError
from taskdisc.images import ImageSet, as_image_set
from taskdisc.labelings import ablation, random_labelings
from taskdisc.taskness.closed_form import KERNELS, ClosedForm, ClosedFormScorer
from taskdisc.taskness.lenet import standardised


def noise(n_images: int, seed: int = 0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (n_images, 32, 32, 3))
    return as_image_set(pixels.astype(np.uint8))


def digits(n_classes: int, per_class: int) -> ImageSet:
    return taskdisc.select(
        taskdisc.load_images("digits"), n_classes=n_classes, per_class=per_class
    ).resized(32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_agrees_with_leaving_each_image_out(kernel: str) -> None:
    images = digits(3, 4)
    n = len(images)
    labelings = random_labelings(5, n, 4, np.random.default_rng(1))
    pixels = standardised(images.images).flatten(1).double().numpy()
    row = KERNELS[kernel]
    matrix = row.of(pixels)
    expected = []
    for labeling in labelings:
        z = labeling - labeling.mean()
        error = baseline = 0.0
        for left_out in range(n):
            rest = np.arange(n) != left_out
            inner = matrix[np.ix_(rest, rest)] + row.ridge * np.eye(n - 1)
            predicted = matrix[left_out, rest] @ np.linalg.solve(inner, z[rest])
            error += (z[left_out] - predicted) ** 2
            baseline += (z[left_out] - z[rest].mean()) ** 2
        expected.append(1 - error / baseline)
    np.testing.assert_allclose(ClosedForm(images, kernel).taskness(labelings), expected, atol=1e-6)


def test_constant_labelings_score_0_and_flips_alike() -> None:
    closed_form = ClosedForm(noise(12))
    constant = np.stack([np.zeros(12), np.ones(12)])
    assert closed_form.taskness(constant).tolist() == [0, 0]
    labelings = random_labelings(4, 12, 3, np.random.default_rng(0))
    np.testing.assert_allclose(
        closed_form.taskness(labelings), closed_form.taskness(1 - labelings), atol=1e-12
    )


def test_climbing_ends_where_no_swap_helps() -> None:
    closed_form = ClosedForm(noise(14))
    for start in random_labelings(10, 14, 4, np.random.default_rng(2)):
        top = closed_form.climb(start)
        assert top.sum() == 4
        reached = closed_form.taskness(top[None])[0]
        assert reached >= closed_form.taskness(start[None])[0] - 1e-12
        swapped = []
        for i in np.flatnonzero(top == 1):
            for j in np.flatnonzero(top == 0):
                other = top.copy()
                other[i], other[j] = 0, 1
                swapped.append(other)
        assert closed_form.taskness(np.array(swapped)).max() <= reached + 1e-9


def test_restarts_find_the_best_of_all_labelings() -> None:
    closed_form = ClosedForm(noise(12, seed=3))
    every = np.zeros((220, 12), dtype=np.uint8)
    for row, positives in zip(every, combinations(range(12), 3), strict=True):
        row[list(positives)] = 1
    best = closed_form.taskness(every).max()
    starts = random_labelings(30, 12, 3, np.random.default_rng(4))
    tops = np.array([closed_form.climb(start) for start in starts])
    assert closed_form.taskness(tops).max() == pytest.approx(best)


def test_digits_come_back_without_their_labels() -> None:
    images = digits(10, 10)
    result = taskdisc.search(
        images,
        ratio=9,
        tasks=10,
        scorer="closed-form",
        proposer="swap",
        kernel="rbf",
        budget=100,
        protocol={"n_steps": 5, "n_splits": 5},
        confirm={"n_splits": 2, "n_random": 200, "random_splits": 1},
        jobs=1,
    )
    classes = [(images.targets["digit"] == c).astype(int) for c in range(10)]
    nearest = [min(ablation(found, known) for found in result.labelings) for known in classes]
    assert sum(distance <= 0.2 for distance in nearest) >= 4


def test_scores_in_a_batch_as_alone() -> None:
    labelings = random_labelings(6, 20, 5, np.random.default_rng(5))
    scorer = ClosedFormScorer(noise(20), "linear")
    together = next(scorer.score_groups([labelings])).taskness
    alone = [next(scorer.score_groups([row[None]])).taskness[0] for row in labelings]
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_bad_input() -> None:
    with pytest.raises(SettingError, match=r"`kernel` .* did you mean 'linear'"):
        ClosedForm(noise(5), "linaer")
    too_many = ImageSet("array", np.zeros((5001, 1, 1, 3), dtype=np.uint8))
    with pytest.raises(ImageSetError, match="at most 5000 images, got 5001"):
        ClosedForm(too_many)
