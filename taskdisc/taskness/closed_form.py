"""Taskness without training: leave-one-out kernel ridge regression, a quadratic form in the labels.

With K the kernel matrix, H = K (K + λI)⁻¹ and z the centred labeling, the leave-one-out residual
of image i is ((I − H) z)_i / (1 − H_ii), so the residuals of all images are one fixed matrix times
the labeling: A z with A = diag(1 / (1 − H_ii)) (I − H). At a fixed number of positives the squared
error is z'Qz with Q = A'A, and that of the baseline, which predicts the mean of the other labels,
is a constant. Hence a labeling is scored by one product, and the effect of swapping a positive for
a negative follows from Qz alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images import ImageSet

MOST_IMAGES = 5000
"""Above it the dense operator, n_images² numbers, would take more than 0.2 GB a copy."""


def linear_kernel(features: np.ndarray) -> np.ndarray:
    """Inner products [n_images, n_images] of features [n_images, n_features], mean diagonal 1."""
    kernel = features @ features.T
    return kernel / max(np.trace(kernel) / len(kernel), 1e-12)


def rbf_kernel(features: np.ndarray) -> np.ndarray:
    """exp(−d² / median d²) of features [n_images, n_features]: the median heuristic."""
    norms = (features**2).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms[None] - 2 * features @ features.T, 0)
    off_diagonal = distances[~np.eye(len(features), dtype=bool)]
    return np.exp(-distances / max(float(np.median(off_diagonal)), 1e-12))


@dataclass(frozen=True)
class Kernel:
    """One row of `KERNELS`: a kernel of standardised pixels and the ridge that goes with it."""

    of: Callable[[np.ndarray], np.ndarray]
    ridge: float


# The ridges are those whose scores agree best with trained taskness on the panel of the study
# `score-reliability` (CIFAR-100, 50 images, 1:4): Spearman 0.85 for linear, 0.83 for rbf, with
# 40 trainings of 100 steps per labeling.
KERNELS: dict[str, Kernel] = {
    "linear": Kernel(linear_kernel, 3.0),
    "rbf": Kernel(rbf_kernel, 2.0),
}


class ClosedForm:
    """The leave-one-out operator of one image set and kernel.

    Attributes:
        residual: A [n_images, n_images]: leave-one-out residuals are A times a centred labeling.
        q: Q = A'A [n_images, n_images].
    """

    def __init__(self, image_set: ImageSet, kernel: str = "linear") -> None:
        if kernel not in KERNELS:
            raise SettingError(
                f"`kernel` must be a known kernel, got {kernel!r}; {did_you_mean(kernel, KERNELS)}"
            )
        n = len(image_set)
        if n > MOST_IMAGES:
            raise ImageSetError(
                f"the closed form must have at most {MOST_IMAGES} images, got {n}; "
                "select fewer with `images.n_images`."
            )
        row = KERNELS[kernel]
        matrix = row.of(_pixels(image_set))
        # I − H = λ (K + λI)⁻¹
        complement = row.ridge * np.linalg.inv(matrix + row.ridge * np.eye(n))
        self.residual = complement / np.diag(complement)[:, None]
        self.q = self.residual.T @ self.residual

    def taskness(self, labelings: np.ndarray) -> np.ndarray:
        """1 − error / baseline error [n_labelings] of labelings 0/1 [n_labelings, n_images].

        Errors are squared and leave-one-out; the baseline predicts the mean of the other labels.
        0 = no better than it, 1 = solved; a constant labeling scores 0. The same scale as trained
        taskness, which compares cross-entropies: equal in rank at best, not in value.
        """
        z = labelings - labelings.mean(axis=1, keepdims=True)
        n = labelings.shape[1]
        error = ((z @ self.residual.T) ** 2).sum(axis=1)
        baseline = (z**2).sum(axis=1) * (n / (n - 1)) ** 2
        return 1 - np.divide(error, baseline, out=np.ones(len(z)), where=baseline > 0)

    def climb(self, labeling: np.ndarray) -> np.ndarray:
        """The labeling at which steepest swap search from `labeling` ends, uint8 [n_images].

        Swapping positive i for negative j changes z'Qz by
        2 ((Qz)_j − (Qz)_i) + Q_ii + Q_jj − 2 Q_ij; each step takes the swap that lowers it most, of
        the 32 positives and 32 negatives that are most promising without the last term, until none
        does.
        """
        labeling = labeling.astype(np.uint8)
        diagonal = np.diag(self.q)
        qz = self.q @ (labeling - labeling.mean())
        while True:
            positives, negatives = np.flatnonzero(labeling == 1), np.flatnonzero(labeling == 0)
            leaves = -2 * qz[positives] + diagonal[positives]
            enters = 2 * qz[negatives] + diagonal[negatives]
            p = np.argsort(leaves, kind="stable")[:32]
            m = np.argsort(enters, kind="stable")[:32]
            cross = self.q[np.ix_(positives[p], negatives[m])]
            change = leaves[p][:, None] + enters[m][None] - 2 * cross
            best = int(change.argmin())
            if change.ravel()[best] > -1e-9:
                return labeling
            i, j = positives[p[best // len(m)]], negatives[m[best % len(m)]]
            labeling[i], labeling[j] = 0, 1
            qz += self.q[:, j] - self.q[:, i]


@dataclass(frozen=True)
class ClosedFormScores:
    """Taskness by the closed form [n_labelings]."""

    taskness: np.ndarray


class ClosedFormScorer:
    """Scores labelings by the closed form, in this process: a search spends milliseconds on it."""

    group = 1000

    def __init__(self, image_set: ImageSet, kernel: str) -> None:
        self._closed_form = ClosedForm(image_set, kernel)

    def score_groups(self, groups: list[np.ndarray]) -> Iterator[ClosedFormScores]:
        """Scores of each group of labelings, in order."""
        for labelings in groups:
            yield ClosedFormScores(self._closed_form.taskness(labelings))


def _pixels(image_set: ImageSet) -> np.ndarray:
    """Standardised pixels [n_images, n_features], as the network sees them, in float64."""
    import torch

    from taskdisc.taskness.lenet import SIDE, standardised

    pixels = standardised(np.asarray(image_set.resized(SIDE).images), torch.float64)
    return pixels.flatten(1).numpy()
