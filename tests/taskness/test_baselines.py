import numpy as np
import pytest
import torch

from taskdisc.taskness.baselines import blind_curves, informed
from taskdisc.taskness.convolutions import lay_out
from taskdisc.taskness.lenet import initial_parameters
from taskdisc.taskness.population import train

LABELING = (np.arange(50) < 10).astype(np.uint8)


def every_fifth(n_images: int = 50) -> np.ndarray:
    """The five splits of every fifth image: stratified for `LABELING`."""
    return np.arange(n_images) % 5 == np.arange(5)[:, None]


def test_informed_is_the_entropy_of_the_ratio_under_stratification() -> None:
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    assert informed(LABELING, every_fifth()) == pytest.approx([entropy] * 5, rel=1e-12)


def test_informed_predicts_the_rate_of_the_train_split() -> None:
    # Train: 3 of 4 positive; validation: 1 of 2 positive.
    labeling = np.array([1, 1, 1, 0, 1, 0], dtype=np.uint8)
    validation = np.array([[False] * 4 + [True] * 2])
    assert informed(labeling, validation) == pytest.approx(-(np.log(3 / 4) + np.log(1 / 4)) / 2)


@pytest.mark.parametrize("value", [0, 1])
def test_informed_is_finite_where_the_train_split_has_one_class(value: int) -> None:
    labeling = np.full(10, value, dtype=np.uint8)
    labeling[8:] = 1 - value
    validation = np.array([[False] * 8 + [True] * 2])
    # The rate 0 or 1 of 8 images is moved inside by half an image.
    assert informed(labeling, validation) == pytest.approx(-np.log(0.5 / 8))


def test_blind_equals_training_on_images_without_information() -> None:
    rng = np.random.default_rng(0)
    labeling = rng.permutation(LABELING)
    validation = np.stack([rng.permutation(np.arange(50) < 10) for _ in range(3)])
    seeds = np.array([5, 6, 7])
    curves = blind_curves(labeling, validation, seeds, 30, 1e-3)
    assert curves.shape == (3, 31)

    losses = train(
        lay_out(torch.zeros(50, 3, 32, 32)),
        torch.from_numpy(labeling).expand(3, 50),
        torch.from_numpy(~validation / (~validation).sum(axis=1, keepdims=True)),
        initial_parameters(seeds),
        n_steps=30,
        lr=1e-3,
    ).numpy()
    share = validation / validation.sum(axis=1, keepdims=True)
    assert np.allclose(curves, (losses * share).sum(axis=2).T, rtol=0, atol=1e-5)


def test_blind_approaches_the_entropy_of_the_ratio() -> None:
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    curves = blind_curves(LABELING, every_fifth(), np.arange(5), 100, 3e-3)
    assert curves[:, -1] == pytest.approx([entropy] * 5, abs=0.01)


@pytest.mark.parametrize("n_pos", [0, 1, 49, 50])
def test_both_are_finite_for_rare_classes(n_pos: int) -> None:
    labeling = (np.arange(50) < n_pos).astype(np.uint8)
    assert np.isfinite(informed(labeling, every_fifth())).all()
    assert np.isfinite(blind_curves(labeling, every_fifth(), np.arange(5), 20, 1e-2)).all()


def test_blind_curves_can_be_changed_without_changing_the_next() -> None:
    first = blind_curves(LABELING, every_fifth(), np.arange(5), 5, 1e-3)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(blind_curves(LABELING, every_fifth(), np.arange(5), 5, 1e-3), kept)
