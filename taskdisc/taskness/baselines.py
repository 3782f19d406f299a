"""The two predictors that never see pixels; what a network has to beat."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from taskdisc.taskness.convolutions import Patches, lay_out
from taskdisc.taskness.lenet import SIDE, initial_parameters
from taskdisc.taskness.population import train


def informed(labeling: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Validation cross-entropy [nats] of the statistically informed baseline, [n_splits].

    It predicts the train split's positive rate for every image. A rate of 0 or 1 is moved inside by
    half an image, so that the result is finite.

    Args:
        labeling: 0/1 [n_images], or one per split [n_splits, n_images].
        validation: Which images validate, bool [n_splits, n_images].
    """
    rate, n_train = _train_rate(labeling, validation)
    rate = np.clip(rate, 0.5 / n_train, 1 - 0.5 / n_train)
    positive = (labeling * validation).sum(axis=1) / validation.sum(axis=1)
    return -(positive * np.log(rate) + (1 - positive) * np.log(1 - rate))


def blind_curves(
    labeling: np.ndarray, validation: np.ndarray, seeds: np.ndarray, n_steps: int, lr: float
) -> np.ndarray:
    """Validation cross-entropy [nats] of the blind baseline, [n_splits, n_steps + 1].

    The same networks from the same initialisations, trained the same way on images that carry no
    information: every image is the image set's mean. Such a network gives all images one
    prediction, so two images, one of each class and weighted by the train split's rate, stand for
    all of them at a fraction of the cost.

    Args:
        labeling: 0/1 [n_images], or one per split [n_splits, n_images].
        validation: Which images validate, bool [n_splits, n_images].
        seeds: Initialisation of each split's network [n_splits].
        n_steps: Steps of Adam.
        lr: Learning rate of Adam.
    """
    rate, _ = _train_rate(labeling, validation)
    by_class = _blind_losses(tuple(map(float, rate)), tuple(map(int, seeds)), n_steps, lr)
    positive = (labeling * validation).sum(axis=1) / validation.sum(axis=1)
    return (1 - positive)[:, None] * by_class[:, :, 0] + positive[:, None] * by_class[:, :, 1]


@lru_cache(maxsize=64)
def _blind_losses(
    rates: tuple[float, ...], seeds: tuple[int, ...], n_steps: int, lr: float
) -> np.ndarray:
    """Losses [n_splits, n_steps + 1, 2] of a negative and of a positive image.

    Under stratification and common initialisations all labelings of a ratio share them.
    """
    weights = torch.tensor([[1 - rate, rate] for rate in rates])
    labels = torch.tensor([[0, 1]]).expand(len(rates), 2)
    losses = train(
        _mean_images(), labels, weights, initial_parameters(seeds), n_steps=n_steps, lr=lr
    )
    return losses.transpose(0, 1).numpy()


@lru_cache(maxsize=1)
def _mean_images() -> Patches:
    # The mean of standardised images is 0 in every pixel's channel.
    blank: Tensor = torch.zeros(2, 3, SIDE, SIDE)
    return lay_out(blank)


def _train_rate(labeling: np.ndarray, validation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n_train = (~validation).sum(axis=1)
    return (labeling * ~validation).sum(axis=1) / n_train, n_train
