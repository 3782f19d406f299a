"""How trials are scored, as data."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from taskdisc.discovery.row import Row
from taskdisc.paper import Paper
from taskdisc.taskness.closed_form import ClosedFormScorer
from taskdisc.taskness.score import TrainedScorer

if TYPE_CHECKING:
    from taskdisc.discovery.loop import Scorer
    from taskdisc.discovery.space import Space
    from taskdisc.pool import Pool

CLOSED_FORM = "the closed form"

ALLEN = Paper(
    "Allen",
    1974,
    "The Relationship between Variable Selection and Data Augmentation and a Method for Prediction",
    "https://doi.org/10.1080/00401706.1974.10489157",
)


def _closed_form(space: "Space", pool: "Pool") -> "Scorer":
    return ClosedFormScorer(space.quadratic, space.exponent)


def _trained(space: "Space", pool: "Pool") -> "Scorer":
    settings = space.settings
    return TrainedScorer(space.image_set, settings.protocol, settings.seed, pool)


SCORERS: dict[str, Row[Callable[["Space", "Pool"], "Scorer"]]] = {
    "closed-form": Row(
        "leave-one-out error of kernel ridge regression, without training",
        _closed_form,
        ALLEN,
        CLOSED_FORM,
    ),
    "two-stage": Row(
        "the closed form for all, then training for the best", _closed_form, ALLEN, CLOSED_FORM
    ),
    "trained": Row("taskness: networks trained on every labeling", _trained),
}
"""By name; of two stages this makes the first."""
