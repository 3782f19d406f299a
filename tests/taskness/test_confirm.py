from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.taskness.confirm import Confirmation, ConfirmPlan, confirm
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import score

SHORT = {"n_steps": 10, "n_splits": 5}


def confirmation(means: list[float], random: np.ndarray, n_splits: int = 4) -> Confirmation:
    per_split = np.array(means)[:, None] + np.array([-0.1, 0.1] * (n_splits // 2))
    curves = np.zeros((len(means), 3))
    return Confirmation(per_split, random, curves, curves, np.ones(len(means)))


def test_mean_and_standard_error() -> None:
    evidence = confirmation([0.5, 0.0], np.zeros(20))
    assert evidence.mean == pytest.approx([0.5, 0.0])
    # Four values at ±0.1: s.d. 0.1 · √(4/3), divided by √4.
    assert evidence.sem == pytest.approx([0.1 / 3**0.5] * 2)


def test_p_counts_the_random_labelings_that_are_as_good() -> None:
    random = np.arange(100) / 100  # 0.00 … 0.99
    evidence = confirmation([2.0, 0.985, 0.5, -1.0], random)
    assert evidence.p == pytest.approx([1 / 101, 2 / 101, 51 / 101, 1], abs=1 / 101 + 1e-12)
    assert evidence.p[[0, 1, 3]] == pytest.approx([1 / 101, 2 / 101, 1])
    assert (evidence.p > 0).all()
    assert (np.diff(evidence.p) > 0).all()


def test_p_counts_ties_against_the_labeling() -> None:
    evidence = confirmation([0.25], np.full(20, 0.25), n_splits=2)
    assert evidence.p == pytest.approx([1.0])
    assert not evidence.is_task[0]


def test_the_threshold_is_the_95_percent_quantile() -> None:
    assert confirmation([0.0], np.arange(101) / 100).threshold == pytest.approx(0.95)


def test_p_is_corrected_over_the_labelings() -> None:
    random = np.arange(99) / 99
    evidence = confirmation([2.0, 0.985, 0.975, -1.0], random)
    p = evidence.p
    assert p == pytest.approx([0.01, 0.02, 0.03, 1.0])
    # By hand: p · m / rank, made monotone from the largest down.
    assert evidence.p_adjusted == pytest.approx([0.04, 0.04, 0.04, 1.0])
    assert evidence.is_task.tolist() == [True, True, True, False]


def test_one_labeling_needs_no_correction_and_many_need_more() -> None:
    random = np.arange(99) / 99
    one = confirmation([0.965], random)
    assert one.p_adjusted == pytest.approx(one.p)
    assert one.is_task[0]
    many = confirmation([0.965, -1.0, -1.0, -1.0], random)
    assert many.p[0] == one.p[0]
    assert not many.is_task[0]


def test_a_task_is_above_the_threshold() -> None:
    # Of 20 random labelings one is far above; p is 2 / 21 at best below it.
    random = np.array([*[0.0] * 19, 5.0])
    assert confirmation([6.0], random).is_task[0]
    assert not confirmation([4.0], random).is_task[0]


def plan_for(digits: ImageSet, **changes: Any) -> ConfirmPlan:
    labelings = random_labelings(3, 25, 5, np.random.default_rng(4))
    plan = ConfirmPlan(
        digits.take(np.arange(0, 50, 2)),
        labelings,
        protocol_from(SHORT),
        n_splits=3,
        n_random=7,
        random_splits=2,
        seed=1,
    )
    return replace(plan, **changes)


class Counted(Progress):
    """Keeps the numbers of trainings that it is told."""

    def __init__(self, trainings: list[int]) -> None:
        self._trainings = trainings

    def advance(self, n: int, best: float | None = None, *, known: bool = False) -> None:
        self._trainings.append(n)


def equal(a: Confirmation, b: Confirmation) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@pytest.fixture(scope="module")
def straight(digits: ImageSet) -> tuple[Confirmation, list[dict[str, Any]], list[int]]:
    lines: list[dict[str, Any]] = []
    trainings: list[int] = []
    evidence = plan_for(digits).run(
        Pool(1, "cpu"), record=lines.extend, progress=Counted(trainings)
    )
    return evidence, lines, trainings


def test_shapes(straight: tuple[Confirmation, list[dict[str, Any]], list[int]]) -> None:
    evidence, lines, _ = straight
    assert evidence.per_split.shape == (3, 3)
    assert evidence.random.shape == (7,)
    assert evidence.validation.shape == evidence.training.shape == (3, 11)
    assert evidence.baseline.shape == (3,)
    assert all(np.isfinite(values).all() for values in vars(evidence).values())
    assert [(line["kind"], line["index"]) for line in lines] == [
        *(("task", i) for i in range(3)),
        *(("random", i) for i in range(7)),
    ]


@pytest.mark.parametrize("n_done", [0, 1, 2, 3, 4, 5, 9, 10])
def test_a_confirmation_goes_on_where_it_stopped(
    digits: ImageSet,
    straight: tuple[Confirmation, list[dict[str, Any]], list[int]],
    n_done: int,
) -> None:
    evidence, lines, _ = straight
    plan = plan_for(digits)
    new: list[dict[str, Any]] = []
    trainings: list[int] = []
    again = plan.run(Pool(1, "cpu"), lines[:n_done], new.extend, Counted(trainings))
    assert equal(again, evidence)
    assert new == lines[n_done:]
    assert sum(trainings) == plan.n_trainings == 3 * 3 + 7 * 2


def test_done_lines_in_any_order(
    digits: ImageSet, straight: tuple[Confirmation, list[dict[str, Any]], list[int]]
) -> None:
    evidence, lines, _ = straight
    again = plan_for(digits).run(Pool(1, "cpu"), [lines[9], lines[1], lines[4]])
    assert equal(again, evidence)


def test_two_workers_give_the_same_bits(
    digits: ImageSet, straight: tuple[Confirmation, list[dict[str, Any]], list[int]]
) -> None:
    assert equal(plan_for(digits).run(Pool(2, "cpu")), straight[0])


def test_the_evidence_does_not_depend_on_the_company(
    digits: ImageSet, straight: tuple[Confirmation, list[dict[str, Any]], list[int]]
) -> None:
    plan = plan_for(digits)
    alone = replace(plan, labelings=plan.labelings[1:2]).run(Pool(1, "cpu"))
    assert np.allclose(alone.per_split[0], straight[0].per_split[1], rtol=0, atol=1e-5)
    assert np.allclose(alone.random, straight[0].random, rtol=0, atol=1e-5)


def test_random_labelings_have_as_many_positives_and_their_own_stream(digits: ImageSet) -> None:
    for n_pos in (5, 12):
        labelings = random_labelings(2, 25, n_pos, np.random.default_rng(0))
        (_, given, _, seed), (_, random, _, other) = plan_for(digits, labelings=labelings)._parts()
        assert np.array_equal(given, labelings)
        assert (random.sum(axis=1) == n_pos).all()
        assert seed != other
        assert len({row.tobytes() for row in random}) == 7


def test_classes_are_tasks_and_random_labelings_are_not(
    digits: ImageSet, class_labeling: np.ndarray
) -> None:
    labelings = np.stack([class_labeling, *random_labelings(1, 50, 10, np.random.default_rng(0))])
    protocol = {"n_steps": 25, "lr": 3e-3}
    evidence = confirm(
        digits, labelings, n_splits=5, n_random=40, random_splits=1, protocol=protocol, jobs=1
    )
    assert evidence.is_task.tolist() == [True, False]
    assert evidence.mean[0] > evidence.threshold


def test_confirmation_is_fresh(digits: ImageSet, class_labeling: np.ndarray) -> None:
    options: dict[str, Any] = {"protocol": {**SHORT, "n_splits": 2}, "seed": 0, "jobs": 1}
    seen = score(digits, class_labeling, **options)
    evidence = confirm(digits, class_labeling, n_splits=2, n_random=20, random_splits=1, **options)
    assert evidence.per_split.shape == seen.per_split.shape
    assert not np.isclose(evidence.per_split, seen.per_split).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_splits": 1}, "`n_splits` must be at least 2, got 1"),
        ({"n_random": 19}, "`n_random` must be at least 20, got 19"),
        ({"random_splits": 0}, "`random_splits` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"jobs": -2}, "`jobs` must be"),
        ({"device": "abacus"}, "`device` must be"),
        ({"protocol": "none"}, "`protocol` must be"),
    ],
)
def test_bad_arguments(digits: ImageSet, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        confirm(digits, np.arange(50) % 2, **options)


def test_labelings_of_different_ratios_are_refused(digits: ImageSet) -> None:
    labelings = np.stack([np.arange(50) < 10, np.arange(50) < 25])
    with pytest.raises(SettingError, match="same number of positives, got from 10 to 25"):
        confirm(digits, labelings)
    with pytest.raises(SettingError, match="`labelings` must have one entry per image"):
        confirm(digits, labelings[:, :40])
