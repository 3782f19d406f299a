from itertools import combinations

import numpy as np
import pytest

from taskdisc.discovery.swaps import Avoiding, descend
from taskdisc.images import ImageSet
from taskdisc.labelings import ablation, key, random_labelings
from taskdisc.taskness.closed_form import Dense, LowRank, Quadratic, closed_form_taskness
from taskdisc.taskness.kernels import Linear, Rbf, make_kernel


def points(n: int, n_features: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n_features)).astype(np.float32)


def form(kind: str, n: int, ridge: float = 0.5, seed: int = 0) -> Quadratic:
    kernel = Rbf(points(n, seed=seed))
    return Dense(kernel, n, ridge) if kind == "dense" else LowRank(kernel, n, ridge, np.arange(n))


def starts_of(n_labelings: int, n: int, n_pos: int, seed: int = 1) -> np.ndarray:
    return random_labelings(n_labelings, n, n_pos, np.random.default_rng(seed))


def cost(q: Quadratic, labelings: np.ndarray, away: np.ndarray | None = None) -> np.ndarray:
    """z'Qz and what nearness to `away` costs, from the definition."""
    z = labelings - labelings.mean(axis=1, keepdims=True)
    value = (z * q.product(z)).sum(axis=1)
    n_pos = int(labelings[0].sum())
    baseline = n_pos * (1 - n_pos / labelings.shape[1])
    for t in [] if away is None else away:
        signed = 2.0 * t - 1 if 2 * n_pos == labelings.shape[1] else t
        value = value + 2.0 * baseline * ((labelings @ signed) / n_pos) ** 2
    return np.asarray(value)


def swapped(labeling: np.ndarray) -> np.ndarray:
    """All labelings that are one swap away."""
    rows = []
    for i in np.flatnonzero(labeling == 1):
        for j in np.flatnonzero(labeling == 0):
            other = labeling.copy()
            other[[i, j]] = 0, 1
            rows.append(other)
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["dense", "low rank"])
@pytest.mark.parametrize("n_pos", [1, 6, 15, 29])
@pytest.mark.parametrize("n_away", [0, 3])
def test_ends_no_worse_than_it_began(kind: str, n_pos: int, n_away: int) -> None:
    q, starts = form(kind, 30), starts_of(40, 30, n_pos)
    away = starts_of(n_away, 30, n_pos, seed=9)
    ends = descend(q, starts, away)
    assert ends.dtype == np.uint8
    assert ends.shape == starts.shape
    assert (ends.sum(axis=1) == n_pos).all()
    before, after = cost(q, starts, away), cost(q, ends, away)
    assert (after <= before + 1e-4).all()
    assert after.mean() < before.mean() - 0.01
    assert np.array_equal(descend(q, starts, away), ends)


def test_without_labelings_to_avoid_none_or_no_rows_are_alike() -> None:
    q, starts = form("dense", 20), starts_of(5, 20, 4)
    assert np.array_equal(descend(q, starts), descend(q, starts, np.empty((0, 20))))


@pytest.mark.parametrize(("n_pos", "ridge"), [(3, 0.1), (10, 0.1), (10, 1.0), (10, 10.0)])
@pytest.mark.parametrize("n_away", [0, 2])
def test_no_swap_makes_the_end_better(n_pos: int, ridge: float, n_away: int) -> None:
    q = form("dense", 20, ridge)
    away = starts_of(n_away, 20, n_pos, seed=9)
    for labeling in descend(q, starts_of(40, 20, n_pos), away):
        best = cost(q, swapped(labeling), away).min()
        assert best >= cost(q, labeling[None], away)[0] - 1e-9


@pytest.mark.parametrize("ridge", [0.3, 3.0])
def test_no_swap_makes_the_end_better_on_images(digits: ImageSet, ridge: float) -> None:
    # More positives and negatives than are paired at a time.
    q = Dense(make_kernel("linear", digits), 50, ridge)
    for labeling in descend(q, starts_of(30, 50, 25)):
        assert cost(q, swapped(labeling)).min() >= cost(q, labeling[None])[0] - 1e-9


def test_a_low_rank_end_is_judged_by_the_form_itself(digits: ImageSet) -> None:
    # The best of its ends is about as good as the dense form's, at the ridge of the defaults too.
    kernel = make_kernel("linear", digits)
    dense, low = Dense(kernel, 50, 10.0), LowRank(kernel, 50, 10.0, np.arange(50))
    starts = starts_of(60, 50, 25)
    scores = [closed_form_taskness(dense, descend(q, starts)) for q in (dense, low)]
    assert scores[1].max() >= scores[0].max() - 0.005
    drawn = closed_form_taskness(dense, starts).mean()
    assert scores[1].mean() - drawn > 0.9 * (scores[0].mean() - drawn)


@pytest.mark.parametrize("kind", ["dense", "low rank"])
@pytest.mark.parametrize("n_pos", [6, 15])
@pytest.mark.parametrize("n_away", [0, 3])
def test_the_value_is_the_cost_up_to_a_constant(kind: str, n_pos: int, n_away: int) -> None:
    q, labelings = form(kind, 30), starts_of(20, 30, n_pos)
    away = starts_of(n_away, 30, n_pos, seed=9)
    value = (labelings * Avoiding(q, away, 2.0).half_gradient(labelings.astype(bool))).sum(axis=1)
    np.testing.assert_allclose(value, cost(q, labelings, away), atol=1e-4)


def test_restarts_find_the_best_of_all_labelings() -> None:
    q = form("dense", 12)
    every = np.zeros((220, 12), dtype=np.uint8)
    for row, positives in zip(every, combinations(range(12), 3), strict=True):
        row[list(positives)] = 1
    tops = descend(q, starts_of(30, 12, 3))
    assert closed_form_taskness(q, tops).max() == pytest.approx(
        closed_form_taskness(q, every).max()
    )


@pytest.mark.parametrize("kind", ["dense", "low rank"])
@pytest.mark.parametrize("n_pos", [20, 50])
def test_a_planted_labeling_is_found(kind: str, n_pos: int) -> None:
    rng = np.random.default_rng(0)
    planted = starts_of(1, 100, n_pos, seed=7)[0]
    x = np.column_stack([planted - planted.mean(), 0.05 * rng.standard_normal((100, 20))])
    kernel = Linear(x.astype(np.float32))
    q: Quadratic = (
        Dense(kernel, 100, 1.0)
        if kind == "dense"
        else LowRank(kernel, 100, 1.0, np.arange(0, 100, 2))
    )
    ends = descend(q, starts_of(20, 100, n_pos))
    best = ends[closed_form_taskness(q, ends).argmax()]
    assert key(best) == key(planted)


@pytest.mark.parametrize("kind", ["dense", "low rank"])
@pytest.mark.parametrize("n_pos", [8, 20])
def test_it_stays_away_from_what_it_is_told(kind: str, n_pos: int) -> None:
    q, starts = form(kind, 40), starts_of(40, 40, n_pos)
    ends = descend(q, starts)
    away = ends[closed_form_taskness(q, ends).argsort()[-2:]]
    others = descend(q, starts, away)

    def nearest(labelings: np.ndarray) -> np.ndarray:
        return np.array([min(ablation(row, t) for t in away) for row in labelings])

    assert nearest(others).mean() > nearest(ends).mean() + 0.1 * n_pos / 20
    assert nearest(others).min() > nearest(ends).min()


def test_ends_do_not_depend_on_the_company() -> None:
    q, starts = form("dense", 30), starts_of(12, 30, 6)
    alone = np.concatenate([descend(q, row[None]) for row in starts])
    assert np.array_equal(descend(q, starts), alone)
