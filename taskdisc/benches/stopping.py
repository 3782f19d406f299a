"""What it would save to stop a training whose minimum seems to have passed, and what it would cost.

Nothing stops early: this shows why.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from taskdisc.pool import Pool
from taskdisc.studies.images import drawn
from taskdisc.studies.score_reliability import PanelSettings, make_panel, spearman
from taskdisc.taskness.protocol import PROTOCOLS, WINDOW, Protocol
from taskdisc.taskness.score import POPULATION, Scores, TrainedScorer, concatenated

PATIENCES = (3, 5, 10, 15, 20, 30, 40, 60)
"""Steps without a lower minimum after which a training stops."""

PANEL_SEEDS = (0, 1, 2)
"""A panel of labelings each, over images drawn afresh."""


@dataclass(frozen=True)
class Saving:
    """What stopping after a patience does to the scores of a panel.

    Attributes:
        patience: Steps without a lower minimum of the smoothed curve after which a training stops.
        same: Share of the trainings whose g is that of the whole curve, in [0, 1].
        steps: Share of the steps that are done if every network stops by itself, in (0, 1].
        together: The same where the networks that are trained at once stop with the last of them.
        largest: Largest difference of a labeling's taskness.
        rank: Spearman correlation of the taskness with that of the whole curves.
    """

    patience: int
    same: float
    steps: float
    together: float
    largest: float
    rank: float


def stopped(curves: np.ndarray, patience: int) -> tuple[np.ndarray, np.ndarray]:
    """g, and the steps after which it is known, where training stops early.

    Args:
        curves: Validation cross-entropy [..., n_steps + 1].
        patience: Steps without a lower minimum of the rolling median of 5 after which to stop.

    Returns:
        Minimum of the rolling median up to there [...], and the steps done [...].
    """
    windows = np.lib.stride_tricks.sliding_window_view(curves, WINDOW, axis=-1)
    lowest = np.minimum.accumulate(np.median(windows, axis=-1), axis=-1)
    now = np.arange(lowest.shape[-1])
    falls = np.diff(lowest, axis=-1, prepend=np.inf) < 0
    done = now - np.maximum.accumulate(np.where(falls, now, 0), axis=-1) >= patience
    last = np.where(done.any(axis=-1), done.argmax(axis=-1), now[-1])
    g = np.take_along_axis(lowest, last[..., None], axis=-1)[..., 0]
    return g, last + WINDOW - 1


def saving(scores: Scores, patience: int) -> Saving:
    """What stopping after a patience does to scores whose curves are whole."""
    curves = scores.validation
    n_steps = curves.shape[-1] - 1
    whole, _ = stopped(curves, n_steps)
    g, steps = stopped(curves, patience)
    before, after = (
        ((scores.baseline - each) / scores.baseline).mean(axis=1) for each in (whole, g)
    )
    at_once = [
        part
        for labeling in steps
        for part in np.split(labeling, range(POPULATION, len(labeling), POPULATION))
    ]
    return Saving(
        patience,
        same=float((g == whole).mean()),
        steps=float(steps.mean() / n_steps),
        together=float(sum(part.max() * len(part) for part in at_once) / (steps.size * n_steps)),
        largest=float(np.abs(after - before).max()),
        rank=spearman(before, after),
    )


def panel_scores(settings: PanelSettings, protocol: Protocol, pool: Pool) -> Scores:
    """The scores of some panels of study `score-reliability`, with their whole curves."""
    parts: list[Scores] = []
    for seed in PANEL_SEEDS:
        image_set = drawn(settings.images, seed=seed)
        panel, _ = make_panel(image_set, settings.model_copy(update={"seed": seed}))
        parts += TrainedScorer(image_set, protocol, seed, pool).score(panel)
    return concatenated(parts)


def savings(settings: PanelSettings, pool: Pool) -> Iterator[tuple[str, list[Saving]]]:
    """A heading, and what every patience saves, for each number of steps that is in use."""
    default = PROTOCOLS["stratified"]
    for protocol in (default, replace(default, n_steps=PROTOCOLS["source"].n_steps)):
        scores = panel_scores(settings, protocol, pool)
        n_labelings, n_splits, n_points = scores.validation.shape
        heading = f"{n_points - 1} steps, {n_labelings} labelings of {n_splits} trainings"
        yield heading, [saving(scores, p) for p in PATIENCES if p < n_points - WINDOW]
