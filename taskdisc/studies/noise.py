"""How often does a search find a task where there is nothing to find? Images of pure noise."""

from typing import Any

import numpy as np
from pydantic import Field

from taskdisc.config import SearchSettings, Settings
from taskdisc.discovery.run import run_search
from taskdisc.images import ImageSet
from taskdisc.labelings import n_positives
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import plot
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study


class NoiseSettings(Settings):
    """The image sets of noise, and the search that looks for tasks in each."""

    n_sets: int = Field(4, ge=1)
    n_images: int = Field(50, ge=10)
    # Small confirmations, for there are many of them; images and seed are the study's.
    search: SearchSettings = SearchSettings.model_validate(
        {"tasks": 1, "confirm": {"n_splits": 20, "n_random": 60, "random_splits": 5}}
    )
    seed: int = Field(0, ge=0)


def cells(settings: NoiseSettings) -> list[Cell]:
    """One per image set."""
    n_positives(settings.n_images, settings.search.ratio)
    return [{"set": number} for number in range(settings.n_sets)]


def measure(settings: NoiseSettings, cell: Cell, pool: Pool, progress: Progress) -> dict[str, Any]:
    """A whole search of one image set, and what it reports.

    Every pixel is drawn by itself and uniformly, so no labeling can be generalised on and every
    task that is reported is false. The rule lets through 5 % of them.
    """
    from taskdisc.taskness.lenet import SIDE

    rng = np.random.default_rng([settings.seed, cell["set"]])
    pixels = rng.integers(0, 256, (settings.n_images, SIDE, SIDE, 3), dtype=np.uint8)
    search = settings.search.model_copy(update={"seed": settings.seed + cell["set"]})
    result = run_search(ImageSet("noise", pixels), search, pool, progress=progress)
    evidence = result.confirmation
    return {
        "tasks": int(evidence.is_task.sum()),
        "put_forward": len(evidence.mean),
        "seen": max(result.trials[i].taskness for i in result.candidates),
        "confirmed": float(evidence.mean[0]),
        "confirmed_sem": float(evidence.sem[0]),
        "random_mean": float(evidence.random.mean()),
        "random_sd": float(evidence.random.std(ddof=1)),
        "threshold": evidence.threshold,
    }


def answer(settings: NoiseSettings, records: list[Record]) -> Answer:
    """Share of the sets that report a task, and how far what was found exceeds random labelings."""
    return Answer(records, _reading(records), {"noise": _draw(records)})


def _reading(table: list[dict[str, Any]]) -> str:
    n = len(table)
    n_false = sum(row["tasks"] > 0 for row in table)
    gap = np.array([row["confirmed"] - row["random_mean"] for row in table])
    sem = f" ± {gap.std(ddof=1) / n**0.5:.3f}" if n > 1 else ""
    return (
        f"{n_false} of {n} image sets of noise report a task ({100 * n_false / n:.0f} %). The best "
        f"labeling's confirmed taskness exceeds that of random labelings by {gap.mean():.3f}{sem}."
    )


def _draw(table: list[dict[str, Any]]) -> Plot:
    figure, axes = plot(
        "taskness of random labelings (mean and s.d.)",
        "confirmed taskness of the best found (± s.e.)",
    )
    axes.errorbar(
        [row["random_mean"] for row in table],
        [row["confirmed"] for row in table],
        xerr=[row["random_sd"] for row in table],
        yerr=[row["confirmed_sem"] for row in table],
        fmt="o",
        alpha=0.5,
    )
    axes.axline((0, 0), slope=1, color="grey", linestyle="--")
    return Plot(
        figure,
        "One point per image set: the best labeling that the search found, against random "
        "labelings. Bars: ± s.e. over splits, and the s.d. of the random labelings; on the dashed "
        "line the two are equal.",
    )


STUDY = Study(
    "how often does a search find a task where there is nothing to find?",
    NoiseSettings,
    cells,
    measure,
    answer,
)
