"""Kinds of tasks and their metrics, as data; importing it imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    """

    summary: str
    make: Callable[[str, int], Any]
    prepare: "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
    higher_is_better: bool = True


def _classes(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Predicted and true class numbers; for yes and no, of every label that is known."""
    if labels.ndim == 1:
        return outputs.argmax(dim=1), labels
    known = ~labels.isnan()
    return (outputs[known] > 0).long(), labels[known].long()


def _scores(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """Probabilities and labels [n, n_outputs]; unknown labels are −1."""
    return outputs.float().sigmoid(), labels.nan_to_num(-1).long()


def _values(outputs: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    known = ~labels.isnan().any(dim=1)
    return outputs[known].float(), labels[known]


def _accuracy(average: Literal["micro", "macro"]) -> Callable[[str, int], Any]:
    def make(kind: str, n_outputs: int) -> Any:
        from torchmetrics.classification import MulticlassAccuracy

        n_classes = n_outputs if kind == "classification" else 2
        return MulticlassAccuracy(n_classes, average=average)

    return make


def _average_precision(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import BinaryAveragePrecision, MultilabelAveragePrecision

    if n_outputs == 1:
        return BinaryAveragePrecision(ignore_index=-1)
    return MultilabelAveragePrecision(n_outputs, average="macro", ignore_index=-1)


def _auc(kind: str, n_outputs: int) -> Any:
    from torchmetrics.classification import BinaryAUROC, MultilabelAUROC

    if n_outputs == 1:
        return BinaryAUROC(ignore_index=-1)
    return MultilabelAUROC(n_outputs, average="macro", ignore_index=-1)


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
    "accuracy": Metric("share of right answers", _accuracy("micro"), _classes),
    "balanced-accuracy": Metric("mean over classes of that share", _accuracy("macro"), _classes),
    "average-precision": Metric(
        "area under precision against recall, a mean over labels", _average_precision, _scores
    ),
    "auc": Metric("area under the ROC curve, a mean over labels", _auc, _scores),
    "r2": Metric("share of the variance that is explained", _r2, _values),
    "mae": Metric("mean absolute error", _mae, _values, higher_is_better=False),
    "mse": Metric("mean squared error", _mse, _values, higher_is_better=False),
}
"""By name."""
