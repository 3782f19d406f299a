"""Tasks: what a network learns of an image, by which loss, and how well it does."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from taskdisc.errors import SettingError, did_you_mean
from taskdisc.mtl.kinds import KINDS, LOSS, METRICS


@dataclass(frozen=True)
class Task:
    """A task, with labels on all or some of the images.

    Attributes:
        name: Its name.
        kind: A key of `KINDS`.
        labels: Of a classification, class numbers int64 [n_images], −1 where unknown. Of the other
            kinds, float32 [n_images, n_outputs], NaN where unknown: 0 and 1, or real numbers.
        n_outputs: Outputs of its head: the number of classes, 1 for binary and one regression
            target, else the number of columns.
        weight: By which its loss is multiplied before any weighting, at least 0.
        metric: A key of `METRICS` that its kind takes.

    Raises:
        SettingError: an unknown kind, or labels that do not fit it or its head.
    """

    name: str
    kind: str
    labels: np.ndarray
    n_outputs: int
    weight: float = 1.0
    metric: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(
                f"`kind` of task '{self.name}' must be a known one, got {self.kind!r}; "
                f"{did_you_mean(self.kind, KINDS)}"
            )
        labels, n = self.labels, self.n_outputs
        got = f"{labels.dtype} {list(labels.shape)}"
        if self.kind == "classification":
            fits = labels.ndim == 1 and labels.dtype == np.int64
            rule = "int64 [n_images]"
        else:
            fits = labels.ndim == 2 and labels.shape[1] == n and labels.dtype == np.float32
            rule = f"float32 [n_images, {n}], a column for each output of its head"
        if not fits:
            raise SettingError(f"`labels` of task '{self.name}' must be {rule}, got {got}.")
        if self.kind == "classification" and labels.max(initial=-1) >= n:
            raise SettingError(
                f"`n_outputs` of task '{self.name}' must be above its highest class number, for "
                f"every class has an output of the head, got {n} outputs and class {labels.max()}."
            )
        if self.kind in ("binary", "multi-label"):
            others = np.setdiff1d(labels[~np.isnan(labels)], [0, 1])
            if len(others):
                raise SettingError(
                    f"`labels` of task '{self.name}' must be 0, 1 or, where unknown, NaN, got "
                    f"{others[0]:g}."
                )

    @property
    def known(self) -> np.ndarray:
        """Which images have a label, or one at least of several, bool [n_images]."""
        if self.labels.ndim == 1:
            return self.labels >= 0
        return ~np.isnan(self.labels).all(axis=1)

    @property
    def metric_name(self) -> str:
        """Its metric; by default the first that its kind takes."""
        return self.metric or KINDS[self.kind].metrics[0]


def per_image(kind: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """The loss of each image [n], a mean over its known labels; NaN where it has none.

    Cross-entropy [nats] of classes, binary cross-entropy [nats], or squared error.

    Args:
        kind: A key of `KINDS`.
        outputs: [n, n_outputs].
        labels: As in `Task`.
    """
    if labels.ndim == 1:
        losses = F.cross_entropy(outputs, labels.clamp(min=0), reduction="none")
        return torch.where(labels >= 0, losses, torch.nan)
    known = ~labels.isnan()
    losses = _LOSSES[kind](outputs, torch.where(known, labels, 0.0))
    return _mean(losses, known, dim=1)


def loss_of(kind: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss over the known labels of a batch, a scalar; 0 where none is known.

    Nothing here waits for the device: unknown labels are masked, not left out.
    """
    if labels.ndim == 1:
        known = labels >= 0
        losses = F.cross_entropy(outputs, labels.clamp(min=0), reduction="none")
    else:
        known = ~labels.isnan()
        losses = _LOSSES[kind](outputs, torch.where(known, labels, 0.0))
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def _mean(values: Tensor, known: Tensor, dim: int) -> Tensor:
    # 0 / 0 is the NaN that stands for no label.
    return torch.where(known, values, 0.0).sum(dim) / known.sum(dim)


def _binary(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")


def _squared(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels) ** 2


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary": _binary,
    "multi-label": _binary,
    "regression": _squared,
}


@torch.no_grad()
def measured(task: Task, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """The mean loss over images, and every metric of the task's kind; NaN where none can be had.

    Args:
        task: The task.
        outputs: Of images [n, n_outputs].
        labels: Of the same images, as in `Task`; images without a label do not count.
    """
    found = {LOSS: float(per_image(task.kind, outputs, labels).nanmean())}
    known = labels >= 0 if labels.ndim == 1 else ~labels.isnan().all(dim=1)
    for name in KINDS[task.kind].metrics:
        found[name] = _metric(name, task, outputs[known], labels[known])
    return found


def _metric(name: str, task: Task, outputs: Tensor, labels: Tensor) -> float:
    if not len(labels):
        return math.nan
    row = METRICS[name]
    metric = row.make(task.kind, task.n_outputs).to(outputs.device)
    metric.sync_on_compute = False  # every device counts all images
    metric.update(*row.prepare(outputs, labels))
    try:
        with warnings.catch_warnings(action="ignore"):  # of columns that are left out below
            found = metric.compute()
    except ValueError:  # r² of one value
        return math.nan
    if row.of_columns:
        both = (labels == 0).any(dim=0) & (labels == 1).any(dim=0)
        found = found[: len(both)][both].mean()
    return float(found if row.reduce is None else row.reduce(found))


def score_of(task: Task, value: float, constant: float) -> float:
    """A metric as a number of which more is better, to compare epochs and to take means.

    Of metrics of which less is better, 1 − value / constant, where `constant` is that of a
    prediction which sees no image; of others the value itself.
    """
    if METRICS[task.metric_name].higher_is_better:
        return value
    return 1 - value / constant if constant > 0 else -value


def constant_outputs(task: Task, train: np.ndarray) -> Tensor:
    """Outputs [n_outputs] that fit the training labels best without any image.

    Args:
        task: The task.
        train: Positions of the training images.
    """
    labels = task.labels[train]
    if labels.ndim == 1:
        counts = np.bincount(labels[labels >= 0], minlength=task.n_outputs)
        return torch.from_numpy(np.log(np.maximum(counts, 0.5) / counts.sum())).float()
    means = torch.from_numpy(np.nanmean(labels, axis=0))
    return means.float() if task.kind == "regression" else torch.logit(means.float(), 1e-6)


def blind(task: Task, train: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """`measured` of the constant outputs that fit the training labels best, on some images.

    Its accuracy is the base rate: that of always saying the most frequent class.

    Args:
        task: The task.
        train: Positions of the training images.
        images: Positions of the images that it is measured on.
    """
    labels = torch.from_numpy(task.labels[images])
    return measured(task, constant_outputs(task, train).expand(len(images), -1), labels)


def as_facts(task: Task) -> dict[str, Any]:
    """What a record says of a task."""
    return {"kind": task.kind, "n_outputs": task.n_outputs, "metric": task.metric_name}
