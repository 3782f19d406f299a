import re
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import vector_to_parameters

from taskdisc.errors import SettingError
from taskdisc.images import ImageSet, load_images
from taskdisc.labelings import random_labelings
from taskdisc.taskness.convolutions import lay_out
from taskdisc.taskness.lenet import LeNet, initial_parameters, standardised
from taskdisc.taskness.population import fit, fit_early
from taskdisc.taskness.propagation import (
    ABSTAINED,
    Propagation,
    _members,
    calibrated,
    calibration_error,
    expected_kappa,
    given_labels,
    n_trained,
    propagate,
    reliability,
)

SHORT: dict[str, Any] = {"n_members": 4, "n_random": 3, "n_steps": 4, "jobs": 1}


@pytest.fixture(scope="module")
def source() -> ImageSet:
    return load_images("digits", cache=False).resized(32)


@pytest.fixture(scope="module")
def small(source: ImageSet) -> tuple[ImageSet, np.ndarray, ImageSet]:
    """20 digits with two labelings of 8 positives, and 30 others."""
    labelings = np.stack([source.targets["digit"][:20] % 2, np.arange(20) < 8])
    labelings[0] = (np.cumsum(labelings[0]) <= 8) & (labelings[0] == 1)
    return source.take(range(20)), labelings, source.take(range(20, 50))


@pytest.fixture(scope="module")
def spread(small: tuple[ImageSet, np.ndarray, ImageSet]) -> Propagation:
    images, labelings, others = small
    return propagate(images, labelings, others, seed=3, **SHORT)


@pytest.fixture(scope="module")
def on_digits(source: ImageSet) -> tuple[Propagation, np.ndarray]:
    """A digit and a random labeling, found on 60 zeros to threes; the truth on 300 others."""
    few = np.flatnonzero(source.targets["digit"] < 4)[:360]
    images, others = source.take(few[:60]), source.take(few[60:])
    truth = others.targets["digit"] == 0
    digit = (images.targets["digit"] == 0).astype(np.uint8)
    random = random_labelings(1, 60, int(digit.sum()), np.random.default_rng(5))
    options = {"n_members": 4, "n_random": 3, "n_steps": 30, "abstain": 0.3, "jobs": 1}
    return propagate(images, np.stack([digit, *random]), others, **options), truth


def test_a_digit_is_propagated_and_a_random_labeling_is_not(
    on_digits: tuple[Propagation, np.ndarray],
) -> None:
    result, truth = on_digits
    labels = result.labels[0]
    given = labels != ABSTAINED
    assert (labels == truth)[given].mean() > 0.98
    assert result.agreement.kappa[0] > 0.8
    assert abs(result.expected_kappa[1]) < 0.1 < 0.4 < result.expected_kappa[0]
    assert result.sensible[0]
    assert result.known_right[0] > 0.9
    assert result.yes[0] == pytest.approx(truth[given].mean(), abs=0.03)


def test_images_that_get_no_label_would_have_been_wrong_more_often(
    on_digits: tuple[Propagation, np.ndarray],
) -> None:
    result, truth = on_digits
    right = (result.probability[0] > 0.5) == truth
    given = result.labels[0] != ABSTAINED
    assert (~given).sum() == 90
    assert right[~given].mean() < right[given].mean()


def test_labels_are_the_more_probable_ones_and_the_least_sure_are_left_open() -> None:
    probability = np.array([[0.9, 0.4, 0.5, 0.2, 0.55], [0.3, 0.3, 0.3, 0.3, 0.8]])
    assert given_labels(probability, 0.4).tolist() == [[1, 0, -1, 0, -1], [-1, -1, 0, 0, 1]]
    labels = given_labels(probability, 0)
    assert labels.tolist() == [[1, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert labels.dtype == np.int8


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.2, -1.5), (3.0, 2.0)])
def test_the_calibration_finds_the_curve_that_made_the_labels(slope: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    truth = 1 / (1 + np.exp(-(slope * logits + offset)))
    labels = (rng.random(20_000) < truth).astype(np.uint8)
    at = np.linspace(-2, 2, 9)
    expected = 1 / (1 + np.exp(-(slope * at + offset)))
    assert calibrated(logits, labels, at) == pytest.approx(expected, abs=0.02)


def test_a_calibration_that_knows_nothing_is_the_share_of_positives() -> None:
    labels = np.array([1, 0, 0, 0] * 5)
    assert calibrated(-labels.astype(float), labels, np.array([-9.0, 9.0])).tolist() == [0.25, 0.25]
    assert calibrated(np.zeros(20), labels, np.ones(1)) == pytest.approx([0.25], abs=0.05)


def test_parted_classes_leave_the_calibration_finite() -> None:
    labels = (np.arange(20) < 8).astype(np.uint8)
    known = np.where(labels, 3.0, -3.0)
    # Platt: one more image of a label is thought as likely to differ as 1 in n + 2.
    assert calibrated(known, labels, np.array([3.0, -3.0])) == pytest.approx([9 / 10, 1 / 14], 1e-3)


def test_the_calibration_error_by_hand() -> None:
    probability = np.array([0.9, 0.1, 0.7, 0.3])
    labels = np.array([1, 0, 0, 1])
    said, right, n = reliability(probability, labels, 2)
    assert (said.tolist(), right.tolist(), n.tolist()) == ([0.2, 0.8], [0.5, 0.5], [2, 2])
    assert calibration_error(probability, labels, 2) == pytest.approx(0.3)
    assert calibration_error(labels.astype(float), labels) == 0  # fewer images than bins


def test_the_error_by_chance_is_that_of_probabilities_that_are_right(spread: Propagation) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((40, 100))
    labels = (rng.random((40, 100)) < probability).astype(np.uint8)
    made = Propagation(**{**vars(spread), "out_of_fold": probability, "labelings": labels})
    assert made.calibration_error.mean() == pytest.approx(
        made.calibration_by_chance.mean(), rel=0.1
    )
    squeezed = Propagation(**{**vars(made), "out_of_fold": 0.5 + (probability - 0.5) / 4})
    assert squeezed.calibration_error.min() > squeezed.calibration_by_chance.max()


def test_the_expected_kappa_is_that_of_labels_that_are_drawn() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(200_000)
    second = np.clip(first + rng.normal(0, 0.2, 200_000), 0, 1)
    a, b = (rng.random(200_000) < p for p in (first, second))
    agree, p, q = (a == b).mean(), a.mean(), b.mean()
    chance = p * q + (1 - p) * (1 - q)
    assert expected_kappa(first, second) == pytest.approx((agree - chance) / (1 - chance), abs=0.01)
    assert expected_kappa(a.astype(float), b.astype(float)) == pytest.approx(
        (agree - chance) / (1 - chance)
    )
    assert expected_kappa(np.full(5, 0.3), np.linspace(0, 1, 5)) == pytest.approx(0)
    assert expected_kappa(np.zeros(5), np.zeros(5)) == 0


def test_the_limit_is_above_all_random_labelings(spread: Propagation) -> None:
    random = np.array([[0, 0, 0, 0.2], [0.1, 0.1, 0.1, 0.1]])
    made = Propagation(
        **{
            **vars(spread),
            "random": {"expected_kappa": random},
            "expected_kappa": np.array([0.21, 0.11]),
        }
    )
    assert made.limit[0] > 0.2
    assert made.limit[1] == pytest.approx(0.1)
    assert made.sensible.tolist() == [False, True]


def test_every_image_is_left_out_by_both_halves_and_members_differ() -> None:
    labeling = (np.arange(50) % 5 == 0).astype(np.uint8)
    for n_members, n_folds in ((10, 5), (4, 2), (14, 5)):
        masks, seeds = _members(labeling, n_members, 0)
        halves = masks.reshape(2, n_members // 2, 50)
        assert (halves.sum(axis=1) >= 1).all()
        assert (halves[:, :n_folds].sum(axis=1) == 1).all()
        assert (masks[:, labeling == 1].sum(axis=1) == 10 // n_folds).all()  # stratified
        assert not np.array_equal(halves[0], halves[1])
        assert len(set(seeds)) == n_members
    assert not np.array_equal(_members(labeling, 4, 1)[0], _members(labeling, 4, 0)[0])
    rolled = _members(np.roll(labeling, 1), 4, 0)
    assert not set(rolled[1]) & set(_members(labeling, 4, 0)[1])


def test_two_processes_give_the_same_as_none(
    small: tuple[ImageSet, np.ndarray, ImageSet], spread: Propagation
) -> None:
    images, labelings, others = small
    again = propagate(images, labelings, others, seed=3, **{**SHORT, "jobs": 2})
    for name in ("labels", "probability", "out_of_fold", "expected_kappa"):
        assert np.array_equal(getattr(again, name), getattr(spread, name)), name
    assert np.array_equal(again.random["kappa"], spread.random["kappa"])


def test_company_does_not_matter_and_the_seed_does(
    small: tuple[ImageSet, np.ndarray, ImageSet], spread: Propagation
) -> None:
    images, labelings, others = small
    alone = propagate(images, labelings[1], others, seed=3, **SHORT)
    assert np.array_equal(alone.probability[0], spread.probability[1])
    assert np.array_equal(alone.out_of_fold[0], spread.out_of_fold[1])
    other = propagate(images, labelings[1], others, seed=4, **SHORT)
    assert not np.array_equal(alone.out_of_fold, other.out_of_fold)


def test_shapes_and_counts(spread: Propagation) -> None:
    assert spread.labels.shape == spread.probability.shape == (2, 30)
    assert spread.labelled.tolist() == [0.8, 0.8]
    assert ((spread.out_of_fold > 0) & (spread.out_of_fold < 1)).all()
    assert spread.random["agreement"].shape == (2, 3)
    rows = spread.to_dict()
    assert len(rows) == 2 and set(rows[0]) >= {"kappa", "limit", "sensible", "calibration_error"}
    assert n_trained(spread.labelings, 3) == 5
    assert n_trained(np.tri(4, 9), 3) == 16  # four numbers of positives


def test_early_stopping_keeps_the_best_step_of_a_plain_lenet(source: ImageSet) -> None:
    images = np.asarray(source.images[:12])
    labels = torch.from_numpy(np.stack([source.targets["digit"][:12] % 2, np.arange(12) % 3 == 0]))
    held_out = torch.zeros(2, 12, dtype=torch.float64)
    held_out[0, :4] = held_out[1, 8:] = 1 / 4
    train = (held_out == 0) / 8
    patches = lay_out(standardised(images, torch.float64), 5)
    start = initial_parameters([1, 2], torch.float64)
    steps, kept = fit_early(patches, labels, train, held_out, start, n_steps=18)
    losses, _ = fit(patches, labels, train, start, n_steps=18)
    curves = (losses * held_out).sum(2)
    assert steps.tolist() == curves.argmin(0).tolist()
    for network in range(2):
        plain = LeNet().double()
        vector_to_parameters(kept[network], plain.parameters())
        with torch.no_grad():
            logits = plain(standardised(images, torch.float64))
        loss = torch.nn.functional.cross_entropy(logits, labels[network].long(), reduction="none")
        expected = curves[:, network].min()
        assert (loss * held_out[network]).sum().item() == pytest.approx(expected.item(), abs=1e-9)


def test_a_network_that_gets_no_better_is_done(source: ImageSet) -> None:
    patches = lay_out(standardised(np.asarray(source.images[:8])))
    labels = torch.tensor([[1, 0] * 4])
    train = torch.tensor([[1 / 4] * 4 + [0] * 4])
    flipped = torch.tensor([[0.0] * 4 + [1 / 4] * 4])
    images = source.take([0, 1, 2, 3, 1, 0, 3, 2])  # what is held out has the other label
    patches = lay_out(standardised(np.asarray(images.images)))
    start = initial_parameters([1])
    short, kept = fit_early(patches, labels, train, flipped, start, n_steps=30)
    long, same = fit_early(patches, labels, train, flipped, start, n_steps=5000)
    assert short.tolist() == long.tolist()
    assert torch.equal(kept, same)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_members": 2}, "`n_members` must be an even number of at least 4, for the halves"),
        ({"n_members": 5}, "got 5; --members says how many"),
        ({"n_random": 2}, "`n_random` must be at least 3, got 2"),
        ({"n_steps": -1}, "`n_steps` must be at least 0, got -1"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"abstain": 1}, "`abstain` must be at least 0 and below 1, got 1"),
        ({"abstain": float("nan")}, "`abstain` must be at least 0 and below 1, got nan"),
        ({"jobs": -1}, "`jobs` must be"),
        ({"device": "abacus"}, "`device` must be"),
        ({"labelings": np.full(20, -1)}, "0 and 1 only, got -1"),
        ({"labelings": np.tri(2, 30)[1]}, "one entry per image, 20 here, got 30"),
        ({"labelings": np.eye(1, 20)}, "at least 3 positives and negatives"),
        ({"labelings": 1 - np.tri(3, 20)}, "got 19 positives of 20 images in labeling 0"),
        ({"others": slice(15, 30)}, "no image that is labelled, got 5 of them"),
    ],
)
def test_bad_arguments(
    source: ImageSet,
    small: tuple[ImageSet, np.ndarray, ImageSet],
    changes: dict[str, Any],
    words: str,
) -> None:
    images, labelings, others = small
    if "others" in changes:
        others = source.take(np.arange(60)[changes["others"]])
    given = {"labelings": labelings, **SHORT, **changes, "others": others}
    with pytest.raises(SettingError, match=re.escape(words)):
        propagate(images, **given)
