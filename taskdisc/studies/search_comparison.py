"""Which search finds the most learnable labeling, and how soon?"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, SearchSettings, Settings
from taskdisc.discovery.run import find, load_selected
from taskdisc.discovery.space import Space
from taskdisc.errors import SettingError
from taskdisc.images import ImageSet
from taskdisc.labelings import n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.study import Answer, plot
from taskdisc.taskness.protocol import protocol_from
from taskdisc.taskness.score import TrainedScorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = SearchSettings(
    proposer="TwoPointsDE", scorer="trained", budget=4000, protocol=protocol_from("source")
)
"""The source work's search."""

FRESH = 1_000_003
"""Added to the seed for the confirming splits, so that no search has used them."""


class ComparisonSettings(Settings):
    """The searches, by name, and the image sets that each of them gets."""

    images: ImagesSettings = ImagesSettings()
    image_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 3, 4), min_length=1)
    searches: dict[str, SearchSettings] = Field(
        min_length=1,
        default={
            "source": SOURCE,
            "default": SearchSettings(),
        },
    )
    n_random: int = Field(40, ge=2)  # random labelings beside them
    n_splits: int = Field(64, ge=2)  # fresh trainings per labeling, by the default protocol
    seed: int = Field(0, ge=0)

    @field_validator("searches")
    @classmethod
    def _of_one_ratio(cls, searches: dict[str, SearchSettings]) -> dict[str, SearchSettings]:
        ratios = sorted({search.ratio for search in searches.values()})
        if len(ratios) > 1:
            raise SettingError(
                f"`searches` must have one ratio, to be held against the same random labelings, "
                f"got {', '.join(map(str, ratios))}."
            )
        return searches


def run(settings: ComparisonSettings, pool: Pool, progress: Progress) -> Answer:
    """Search time and confirmed taskness of every search's best labeling, per image set.

    The labelings of one image set are confirmed together, on the same fresh splits, by the default
    protocol whatever the search scored by; so are random labelings, as the mark of nothing found.
    The images are those of the study, not of a search; all searches have one ratio.
    """
    protocol = replace(protocol_from("stratified"), n_splits=settings.n_splits)
    table = []
    for image_seed in settings.image_seeds:
        images = load_selected(settings.images.model_copy(update={"seed": image_seed}), progress)
        found = {
            name: _best(search, images, pool, progress)
            for name, search in settings.searches.items()
        }
        ratio = next(iter(settings.searches.values())).ratio
        random = random_labelings(
            settings.n_random,
            len(images),
            n_positives(len(images), ratio),
            np.random.default_rng([settings.seed, image_seed]),
        )
        scorer = TrainedScorer(images, protocol, settings.seed + FRESH, pool)
        labelings = np.concatenate([[row["labeling"] for row in found.values()], random])
        progress.start("confirm", len(labelings), "labelings")
        means, sems = [], []
        for part in scorer.score(labelings):
            means += part.taskness.tolist()
            sems += part.sem.tolist()
            progress.advance(len(part.per_split))
        progress.finish()
        n = len(found)
        for (name, row), mean, sem in zip(found.items(), means, sems, strict=False):
            table.append(
                {
                    "search": name,
                    "images_seed": image_seed,
                    "labelings": row["labelings"],
                    "seconds": row["seconds"],
                    "seen": row["seen"],
                    "confirmed": mean,
                    "confirmed_sem": sem,
                    "random_mean": float(np.mean(means[n:])),
                    "random_sd": float(np.std(means[n:], ddof=1)),
                    "positives": " ".join(map(str, np.flatnonzero(row["labeling"]))),
                }
            )
    return Answer(table, _reading(table), {"searches": _draw(table)})


def _best(
    settings: SearchSettings, images: ImageSet, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """The labeling that a search likes best, what it saw in it, and its wall time [s]."""
    start = time.perf_counter()
    found = find(Space(images, settings), pool, progress)
    seconds = time.perf_counter() - start
    best = found.trials[found.candidates[0]]
    return {
        "labeling": best.labeling,
        "seen": best.taskness,
        "labelings": len(found.trials),
        "seconds": round(seconds, 3),
    }


def _reading(table: list[dict[str, Any]]) -> str:
    sentences = []
    for name in dict.fromkeys(row["search"] for row in table):
        rows = [row for row in table if row["search"] == name]
        confirmed = np.array([row["confirmed"] for row in rows])
        spread = f" (s.d. {confirmed.std(ddof=1):.3f})" if len(rows) > 1 else ""
        seconds = np.median([row["seconds"] for row in rows])
        sentences.append(
            f"'{name}' finds labelings of confirmed taskness {confirmed.mean():.3f}{spread} "
            f"in {seconds:.3g} s"
        )
    n = len({row["images_seed"] for row in table})
    random = np.mean([row["random_mean"] for row in table])
    return f"Over {n} image sets: {'; '.join(sentences)}; random labelings have {random:.3f}."


def _draw(table: list[dict[str, Any]]) -> "Figure":
    figure, axes = plot("time of the search [s]", "confirmed taskness of its best labeling")
    for name in dict.fromkeys(row["search"] for row in table):
        rows = [row for row in table if row["search"] == name]
        axes.errorbar(
            [row["seconds"] for row in rows],
            [row["confirmed"] for row in rows],
            yerr=[row["confirmed_sem"] for row in rows],
            fmt="o",
            capsize=3,
            label=name,
        )
    axes.axhline(np.mean([row["random_mean"] for row in table]), color="grey", linestyle="--")
    axes.set_xscale("log")
    axes.legend()
    return figure
