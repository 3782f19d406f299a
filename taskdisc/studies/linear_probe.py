"""A linear probe: how well one linear layer tells classes by features that nothing changes."""

from typing import Any, NamedTuple

import numpy as np

CS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that are tried."""

NO_CHOICE = 1.0
"""The strength where a class has one labelled image alone, so that none can be held out."""

MOST_FOLDS = 5


class Probed(NamedTuple):
    """What a probe found: its accuracy on the test images, and its inverse strength."""

    accuracy: float
    c: float


def standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features of mean 0 and s.d. 1 over the training images; constant ones are 0 there.

    All training images count, for it takes no label of them.

    Args:
        features: float32 [n_images, n_features].
        train: Positions of the training images.

    Returns:
        float64 [n_images, n_features].
    """
    seen = features[train].astype(np.float64)
    deviation = seen.std(axis=0)
    # Below it values of float32 differ by rounding alone.
    varies = deviation > 1e-6 * np.abs(seen).max(axis=0)
    return (features - seen.mean(axis=0)) / np.where(varies, deviation, 1)


def probe(
    features: np.ndarray, labels: np.ndarray, labelled: np.ndarray, test: np.ndarray, seed: int
) -> Probed:
    """Logistic regression on some labelled images, and its accuracy on the test images.

    Alain & Bengio 2016, "Understanding Intermediate Layers Using Linear Classifier Probes". The
    strength of its penalty is the best of `CS` in a stratified cross-validation on the labelled
    images alone, of equals the strongest; in up to five folds, as many as the rarest of their
    classes has images.

    Args:
        features: Standardised, float [n_images, n_features].
        labels: Class numbers int64 [n_images].
        labelled: Positions of the labelled images, of at least two classes.
        test: Positions of the test images, whose labels count for the accuracy alone.
        seed: Of the folds.
    """
    chosen = _fitted(features[labelled], labels[labelled], seed)
    return Probed(float(chosen.score(features[test], labels[test])), float(chosen.C))


def _fitted(features: np.ndarray, labels: np.ndarray, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    model = LogisticRegression(C=NO_CHOICE, max_iter=2000)
    n_folds = min(MOST_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if n_folds < 2:
        return model.fit(features, labels)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    # The first of equals is taken, so the strongest penalty comes first.
    search = GridSearchCV(model, {"C": list(CS)}, cv=folds, scoring="accuracy")
    return search.fit(features, labels).best_estimator_
