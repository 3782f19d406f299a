"""Which kernel and ridge agree best with trained taskness? The panel of `score-reliability`."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, plot
from taskdisc.studies.images import drawn
from taskdisc.studies.score_reliability import (
    PanelSettings,
    bootstrap_sd,
    make_panel,
    spearman,
    trained_on,
)
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study
from taskdisc.taskness.closed_form import (
    Dense,
    calibrated,
    closed_form_taskness,
    taskness_on_splits,
)
from taskdisc.taskness.kernels import KERNELS, Precomputed, make_kernel
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import splits_of


class ClosedFormStudySettings(PanelSettings):
    """The panel, over one or more image sets, and the closed forms that are compared on it."""

    image_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    trainings: int = Field(20, ge=2)  # per labeling
    kernels: tuple[str, ...] = Field((*KERNELS, "linear+tangent"), min_length=1)
    ridges: tuple[Annotated[float, Field(gt=0)], ...] = Field((1, 3, 10, 30, 100), min_length=1)
    features: str = "pixels"


def cells(settings: ClosedFormStudySettings) -> list[Cell]:
    """One per image set."""
    return [{"images_seed": seed} for seed in settings.image_seeds]


def measure(
    settings: ClosedFormStudySettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Correlation of closed forms with trained taskness on one image set, by kernel and ridge.

    Left out one at a time, as in a search, and on the splits of the first ten trainings (of up to
    200 images).
    `exponent` brings it to trained taskness, see `calibrated`; `noise_limit` is the correlation of
    a perfect predictor, from two halves of the trainings.
    """
    protocol = replace(protocol_from("stratified"), n_splits=settings.trainings)
    rng = np.random.default_rng([settings.seed, cell["images_seed"]])
    images = drawn(settings.images, seed=cell["images_seed"])
    panel, kinds = make_panel(images, settings)
    per_split = trained_on(images, panel, protocol, settings.seed, pool, progress)
    trained = per_split.mean(axis=1)
    halves = spearman(per_split[:, ::2].mean(axis=1), per_split[:, 1::2].mean(axis=1))
    few = replace(protocol, n_splits=min(10, settings.trainings))
    masks = np.stack([splits_of(few, labeling, settings.seed)[0] for labeling in panel])
    planned = kinds != "random"
    rows = []
    for name in settings.kernels:
        kernel = Precomputed.of(make_kernel(name, images, settings.features), len(images))
        for ridge in settings.ridges:
            score = closed_form_taskness(Dense(kernel, len(images), ridge), panel)
            on_splits = taskness_on_splits(kernel, panel, ridge, masks)
            rows.append(
                {
                    "kernel": name,
                    "ridge": ridge,
                    "spearman": spearman(score, trained),
                    "spearman_sd": bootstrap_sd(score, trained, rng),
                    "not_random": spearman(score[planned], trained[planned])
                    if planned.sum() > 2
                    else None,
                    "pearson": float(np.corrcoef(score, trained)[0, 1]),
                    "on_splits": spearman(on_splits, trained),
                    "exponent": _exponent(score, trained),
                    # Spearman & Brown: from half of the trainings to all of them.
                    "noise_limit": float(np.sqrt(max(2 * halves / (1 + halves), 0))),
                    "n_labelings": len(panel),
                }
            )
    return {"rows": rows}


def answer(settings: ClosedFormStudySettings, records: list[Record]) -> Answer:
    """The correlations, and the closed form that agrees best on average."""
    table = [
        {"images_seed": record["images_seed"], **row}
        for record in records
        for row in record["rows"]
    ]
    return Answer(table, _reading(table, settings), {"closed-form": _draw(table)})


def _exponent(score: np.ndarray, trained: np.ndarray) -> float:
    """The exponent of `calibrated` with the least squared error."""
    from scipy.optimize import minimize_scalar

    def error(log_exponent: float) -> float:
        return float(((calibrated(score, np.exp(log_exponent)) - trained) ** 2).sum())

    return float(np.exp(minimize_scalar(error, bounds=(-5, 8), method="bounded").x))


def _means(table: list[dict[str, Any]]) -> dict[tuple[str, float], float]:
    """Mean correlation over the image sets, by kernel and ridge."""
    cells = dict.fromkeys((row["kernel"], row["ridge"]) for row in table)
    return {
        cell: float(
            np.mean([row["spearman"] for row in table if (row["kernel"], row["ridge"]) == cell])
        )
        for cell in cells
    }


def _reading(table: list[dict[str, Any]], settings: ClosedFormStudySettings) -> str:
    means = _means(table)
    (kernel, ridge), best = max(means.items(), key=lambda item: item[1])
    rows = [row for row in table if (row["kernel"], row["ridge"]) == (kernel, ridge)]
    each = ", ".join(f"{row['spearman']:.3f} ± {row['spearman_sd']:.3f}" for row in rows)
    return (
        f"Of {len(means)} closed forms, '{kernel}' at ridge {ridge:g} agrees best with the "
        f"taskness of {settings.trainings} trainings: Spearman {best:.3f} on average ({each} ± "
        f"bootstrap s.d. per image set of {rows[0]['n_labelings']} labelings; "
        f"{np.mean([row['noise_limit'] for row in rows]):.3f} is what noise allows)."
    )


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, axes = plot("ridge", "Spearman correlation with trained taskness")
    found = {(row["images_seed"], row["kernel"], row["ridge"]): row["spearman"] for row in table}
    seeds = list(dict.fromkeys(seed for seed, _, _ in found))
    ridges = list(dict.fromkeys(ridge for _, _, ridge in found))
    for name in dict.fromkeys(kernel for _, kernel, _ in found):
        values = np.array([[found[seed, name, ridge] for ridge in ridges] for seed in seeds])
        band(axes, ridges, values, name)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right")
    return Plot(
        figure,
        "Spearman's correlation of a closed form with trained taskness. Bands: ± s.e. over "
        f"{len(seeds)} image set{'s' if len(seeds) > 1 else ''}.",
    )


STUDY = Study(
    "which kernel and ridge agree best with trained taskness?",
    ClosedFormStudySettings,
    cells,
    measure,
    answer,
    check=lambda settings: drawn(settings.images),
    alone=True,
)
