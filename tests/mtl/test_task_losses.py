"""Tasks: their losses, labels that are missing, and their metrics."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from taskdisc.errors import SettingError
from taskdisc.mtl.kinds import KINDS, METRICS
from taskdisc.mtl.tasks import (
    Task,
    blind,
    constant_outputs,
    loss_of,
    measured,
    per_image,
    score_of,
)

CPU = torch.device("cpu")


def example(kind: str, n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs and labels, some of them unknown."""
    rng = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, 1 if kind == "binary" else 3, generator=rng)
    if kind == "classification":
        labels = torch.randint(0, 3, (n,), generator=rng)
        labels[::4] = -1
        return outputs, labels
    labels = torch.randn(n, outputs.shape[1], generator=rng)
    labels = labels if kind == "regression" else (labels > 0).float()
    labels[::4] = torch.nan
    if labels.shape[1] > 1:
        labels[1, 0] = torch.nan
    return outputs, labels


PLAIN = {
    "classification": F.cross_entropy,
    "binary": F.binary_cross_entropy_with_logits,
    "multi-label": F.binary_cross_entropy_with_logits,
    "regression": F.mse_loss,
}

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_the_loss_is_the_plain_one_of_what_is_known(kind: str) -> None:
    outputs, labels = example(kind)
    known = labels >= 0 if labels.ndim == 1 else ~labels.isnan()
    rows = known if labels.ndim == 1 else ...
    expected = PLAIN[kind](outputs[rows] if labels.ndim == 1 else outputs[known], labels[known])
    torch.testing.assert_close(loss_of(kind, outputs, labels), expected)


@each_kind
def test_unknown_labels_give_no_gradient_and_no_loss(kind: str) -> None:
    outputs, labels = example(kind)
    outputs.requires_grad_()
    loss_of(kind, outputs, labels).backward()
    assert outputs.grad is not None
    assert not outputs.grad[::4].any() and outputs.grad[2].any()
    unknown = torch.full_like(labels, -1 if labels.ndim == 1 else torch.nan)
    loss = loss_of(kind, outputs, unknown)
    loss.backward()
    assert float(loss.detach()) == 0 and outputs.grad.isfinite().all()
    assert per_image(kind, outputs, unknown).isnan().all()


@each_kind
def test_the_loss_of_each_image_has_the_batch_loss_as_its_mean(kind: str) -> None:
    outputs, labels = example(kind)
    if labels.ndim > 1:
        labels[1, 0] = 1.0  # the same number of labels on each image
    losses = per_image(kind, outputs, labels)
    assert losses.isnan().tolist() == [i % 4 == 0 for i in range(12)]
    torch.testing.assert_close(losses.nanmean(), loss_of(kind, outputs, labels))


def made(kind: str, labels: Tensor, metric: str, n_outputs: int) -> Task:
    return Task("t", kind, labels.numpy(), n_outputs, metric=metric)


@pytest.mark.parametrize(
    ("kind", "metric"), [(kind, metric) for kind, row in KINDS.items() for metric in row.metrics]
)
def test_metrics_agree_with_scikit_learn_and_leave_out_the_unknown(kind: str, metric: str) -> None:
    from sklearn import metrics as reference

    outputs, labels = example(kind, 60)
    task = made(kind, labels, metric, outputs.shape[1])
    if kind == "classification":
        known = labels >= 0
        y, found, scores = labels[known], outputs[known].argmax(1), None
    elif kind == "regression":
        known = ~labels.isnan().any(1)
        y, found, scores = labels[known], outputs[known], None
    else:
        known = ~labels.isnan()
        y, found, scores = labels[known], outputs[known] > 0, outputs
    if metric in ("average-precision", "auc"):
        assert scores is not None
        of = {
            "average-precision": reference.average_precision_score,
            "auc": reference.roc_auc_score,
        }[metric]
        columns = range(labels.shape[1])
        expected = float(
            np.mean([of(labels[known[:, c], c], scores[known[:, c], c]) for c in columns])
        )
    else:
        expected = {
            "accuracy": reference.accuracy_score,
            "balanced-accuracy": reference.balanced_accuracy_score,
            "r2": reference.r2_score,
            "mae": reference.mean_absolute_error,
            "mse": reference.mean_squared_error,
        }[metric](y, found)
    found = measured(task, outputs, labels)
    assert found[metric] == pytest.approx(expected, abs=1e-5)
    assert set(found) == {"loss", *KINDS[kind].metrics}
    assert found["loss"] == pytest.approx(float(loss_of(kind, outputs, labels)), rel=0.2)


def test_a_metric_of_too_little_is_nan() -> None:
    task = made("regression", torch.ones(1, 1), "", 1)
    found = measured(task, torch.ones(1, 1), torch.ones(1, 1))
    assert math.isnan(found["r2"]) and found["mae"] == 0


def test_a_metric_of_nothing_is_nan() -> None:
    labels = torch.full((3, 1), torch.nan)
    found = measured(made("binary", labels, "", 1), torch.ones(3, 1), labels)
    assert all(math.isnan(value) for value in found.values())


def test_classes_that_do_not_occur_do_not_count() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2]), 3).float()
    found = measured(made("classification", labels, "", 3), outputs, labels)
    assert found["balanced-accuracy"] == pytest.approx(0.75)


@pytest.mark.parametrize("metric", ["auc", "average-precision"])
def test_labels_of_one_class_do_not_count(metric: str) -> None:
    outputs = torch.tensor([[-1.0, 1.0], [2.0, 1.0]])
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found = measured(made("multi-label", labels, "", 2), outputs, labels)
    assert found[metric] == 1  # of the first column
    for label in (0.0, 1.0):
        alone = torch.full((2, 1), label)
        found = measured(made("binary", alone, "", 1), outputs[:, :1], alone)
        assert math.isnan(found[metric])


@each_kind
def test_the_constant_prediction_is_the_best_that_sees_no_image(kind: str) -> None:
    _, labels = example(kind, 200)
    n_outputs = 1 if kind == "binary" else 3
    task = made(kind, labels, "", n_outputs)
    best = constant_outputs(task, np.arange(200))
    least = loss_of(kind, best.expand(200, -1), labels)
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        other = best + 0.1 * torch.randn(n_outputs, generator=rng)
        assert least <= loss_of(kind, other.expand(200, -1), labels) + 1e-6


def test_scores_of_errors_are_the_share_that_is_explained() -> None:
    labels = torch.tensor([[-1.0], [1.0], [3.0]])
    task = made("regression", labels, "mse", 1)
    constant = blind(task, np.arange(3), np.arange(3))["mse"]
    assert constant == pytest.approx(8 / 3)
    assert score_of(task, constant, constant) == 0
    assert score_of(task, 0.0, constant) == 1
    assert score_of(made("binary", labels.clamp(0, 1), "auc", 1), 0.7, 0.5) == 0.7


def test_blind_is_the_base_rate() -> None:
    labels = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0]])
    found = blind(made("binary", labels, "", 1), np.arange(4), np.arange(5))
    assert found["accuracy"] == pytest.approx(0.6) and found["balanced-accuracy"] == 0.5
    assert found["average-precision"] == pytest.approx(0.4)
    entropy = -(2 * np.log(0.25) + 3 * np.log(0.75)) / 5
    assert found["loss"] == pytest.approx(entropy)


def test_every_metric_is_one_of_some_kind() -> None:
    assert {metric for row in KINDS.values() for metric in row.metrics} == set(METRICS)


CLASSES = np.array([0, 2, -1])
COLUMN = np.array([[0.0], [1.0], [np.nan]], dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "labels", "n_outputs", "message"),
    [
        ("clasification", CLASSES, 3, "did you mean 'classification'"),
        (
            "classification",
            CLASSES,
            2,
            "above its highest class number.* 2 outputs and class 2",
        ),
        ("classification", COLUMN, 1, r"must be int64 \[n_images\], got float32 \[3, 1\]"),
        ("binary", COLUMN, 2, r"float32 \[n_images, 2\], a column for each output of its head"),
        ("binary", COLUMN * 2, 1, "must be 0, 1 or, where unknown, NaN, got 2"),
        ("regression", CLASSES, 1, "must be float32"),
    ],
)
def test_labels_that_do_not_fit_a_head(
    kind: str, labels: np.ndarray, n_outputs: int, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        Task("t", kind, labels, n_outputs)
