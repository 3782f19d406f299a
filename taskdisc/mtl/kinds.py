"""Kinds of tasks and their metrics, as data; importing it imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Kind:
    """One row of `KINDS`.

    Attributes:
        summary: One line: its labels and its loss.
        metrics: The metrics that it takes, keys of `METRICS`; the first is its default.
        likelihood: As which kind uncertainty weighting takes it, `regression` or `classification`.
    """

    summary: str
    metrics: tuple[str, ...]
    likelihood: str


LOSS = "loss"
"""Names the mean loss over images beside the metrics, where all are measured."""

KINDS: dict[str, Kind] = {
    "classification": Kind(
        "one of several classes; cross-entropy", ("accuracy", "balanced-accuracy"), "classification"
    ),
    "binary": Kind(
        "yes or no; binary cross-entropy",
        ("accuracy", "balanced-accuracy", "average-precision", "auc"),
        "classification",
    ),
    "multi-label": Kind(
        "several times yes or no; mean binary cross-entropy",
        ("average-precision", "accuracy", "balanced-accuracy", "auc"),
        "classification",
    ),
    "regression": Kind("real numbers; mean squared error", ("r2", "mae", "mse"), "regression"),
}
"""By name."""


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    Attributes:
        summary: One line.
        make: Makes the metric of torchmetrics for a kind and a number of outputs.
        prepare: Turns outputs [n, n_outputs] and labels into what it counts.
        higher_is_better: Whether more of it is better.
        reduce: Turns what it gives into one number.
        of_columns: Whether it is a mean over columns of labels, those with both yes and no.
    """

    summary: str
    make: Callable[[str, int], Any]
    prepare: "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
    higher_is_better: bool = True
    reduce: "Callable[[Tensor], Tensor] | None" = None
    of_columns: bool = False


def _classes(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Predicted and true class numbers; for yes and no, of every label that is known."""
    if labels.ndim == 1:
        return outputs.argmax(dim=1), labels
    known = ~labels.isnan()
    return (outputs[known] > 0).long(), labels[known].long()


def _scores(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Probabilities and labels [n, n_outputs]; unknown labels are −1.

    A single column is there twice, for torchmetrics takes two at least.
    """
    n = max(outputs.shape[1], 2)
    return outputs.float().sigmoid().expand(-1, n), labels.nan_to_num(-1).long().expand(-1, n)


def _values(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    known = ~labels.isnan().any(dim=1)
    return outputs[known].float(), labels[known]


def _accuracy(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(_n_classes(kind, n_outputs), average="micro")


def _confusion(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import MulticlassConfusionMatrix

    return MulticlassConfusionMatrix(_n_classes(kind, n_outputs))


def _n_classes(kind: str, n_outputs: int) -> int:
    return n_outputs if kind == "classification" else 2


def _mean_recall(confusion: "Tensor") -> "Tensor":
    """The mean over classes that occur of the share that was found; rows are true classes."""
    counts = confusion.sum(dim=1)
    return (confusion.diagonal() / counts)[counts > 0].mean()


def _average_precision(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import MultilabelAveragePrecision

    return MultilabelAveragePrecision(max(n_outputs, 2), average="none", ignore_index=-1)


def _auc(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import MultilabelAUROC

    return MultilabelAUROC(max(n_outputs, 2), average="none", ignore_index=-1)


def _r2(kind: str, n_outputs: int) -> Any:
    from torchmetrics.regression import R2Score

    return R2Score()


def _mae(kind: str, n_outputs: int) -> Any:
    from torchmetrics.regression import MeanAbsoluteError

    return MeanAbsoluteError()


def _mse(kind: str, n_outputs: int) -> Any:
    from torchmetrics.regression import MeanSquaredError

    return MeanSquaredError()


METRICS: dict[str, Metric] = {
    "accuracy": Metric("share of right answers", _accuracy, _classes),
    "balanced-accuracy": Metric(
        "mean over classes of the share that is found", _confusion, _classes, reduce=_mean_recall
    ),
    "average-precision": Metric(
        "area under precision against recall, a mean over labels",
        _average_precision,
        _scores,
        of_columns=True,
    ),
    "auc": Metric("area under the ROC curve, a mean over labels", _auc, _scores, of_columns=True),
    "r2": Metric("share of the variance that is explained", _r2, _values),
    "mae": Metric("mean absolute error", _mae, _values, higher_is_better=False),
    "mse": Metric("mean squared error", _mse, _values, higher_is_better=False),
}
"""By name."""


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; of the loss it is not."""
    return metric in METRICS and METRICS[metric].higher_is_better
